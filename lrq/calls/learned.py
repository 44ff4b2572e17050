"""What is known of endpoints in this process: the presets, what the ledger holds, and what its own calls have met.

Topics of a fact, each with the name it is about:
    refused (a parameter)   not sent
    most, least (one)       the bounds of its value
    room (a kind)           tokens for a reasoning model's thoughts beside a reply's own limit; 0: it does not think
    context                 tokens of prompt and reply together
    density                 tokens to a byte of its prompts, at most
    factor (prompt …)       how far the server's counts were above what bytes allow
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from lrq.calls.forms import LIMIT, Change, Form
from lrq.calls.presets import refused_by
from lrq.config import Endpoint
from lrq.domain.records import Call, Choice, Usage, utf8_length
from lrq.ledger.learned import Fact

# A limit costs nothing where it is not reached, and a reply that it cuts is paid for: so room grows in few large steps.
ROOMS = (0, 4096, 16_384, 65_536)
_SPARE = 2  # room is this many times the longest thought that was seen: thoughts differ much in length
_THINKING_ROLES = {"judge", "teacher"}  # a policy's limit is the user's

_Facts = dict[tuple[str, str], Fact]  # by topic and name


class Learned:
    """Facts by server and model, and the form of requests that follows from them."""

    def __init__(self, facts: Iterable[Fact] = ()) -> None:
        self._facts: defaultdict[tuple[str, str], _Facts] = defaultdict(dict)
        self._forms: dict[tuple[object, ...], Form] = {}
        self.version = 0  # raised by each fact
        for fact in facts:
            self.note(fact)

    def note(self, fact: Fact) -> bool:
        """Take a `fact` in; False where as much was known, and nobody needs to be told."""
        facts = self._facts[fact.server, fact.model]
        before = facts.get((fact.topic, fact.name))
        if before is not None and not _is_news(before, fact):
            return False
        facts[fact.topic, fact.name] = fact
        self._forms.clear()
        self.version += 1
        return True

    def about(self, endpoint: Endpoint, model: str) -> Sequence[Fact]:
        """Return all that is known of a `model` at the server of the `endpoint`."""
        return tuple(self._facts.get((endpoint.address, model), {}).values())

    def form(self, endpoint: Endpoint, call: Call, kind: str) -> Form:
        """Return how a call is to be asked; `kind` is the prompt's."""
        name = endpoint.address, call.model, call.role, kind, endpoint.reasoning_tokens
        form = self._forms.get(name)
        if form is None:
            facts = self._facts.get(name[:2], {})
            form = self._forms[name] = Form(
                refused=refused_by(endpoint, call.model) | _named(facts, "refused").keys(),
                most=_named(facts, "most"),
                least=_named(facts, "least"),
                room=self._room(endpoint, facts, kind) if call.role in _THINKING_ROLES else 0,
                context=int(_named(facts, "context").get("", 0)),
                density=_named(facts, "density").get("", Form.density),
                prompt_factor=_named(facts, "factor").get("prompt", 1.0),
                completion_factor=_named(facts, "factor").get("completion", 1.0),
            )
        return form

    def is_measured(self, endpoint: Endpoint, call: Call) -> bool:
        """Say whether it is known how long the model thinks; until then its first calls go ahead of the others.

        Always so where the settings say `reasoning_tokens`, and for roles and APIs that get no room for thoughts.
        """
        if endpoint.reasoning_tokens is not None or call.role not in _THINKING_ROLES or call.api != "chat":
            return True
        facts = self._facts.get((endpoint.address, call.model), {})
        return any(topic == "room" for topic, _ in facts)

    def known_room(self, endpoint: Endpoint, model: str, kind: str) -> float:
        """Return the tokens of room that were learned for this `kind` of prompt; -1 where nothing is known."""
        fact = self._facts.get((endpoint.address, model), {}).get(("room", kind))
        return -1 if fact is None else fact.value

    def _room(self, endpoint: Endpoint, facts: _Facts, kind: str) -> int:
        if endpoint.reasoning_tokens is not None:
            return endpoint.reasoning_tokens
        rooms = _named(facts, "room")
        return int(rooms.get(kind) or max(rooms.values(), default=0))  # where it thinks once, it may anywhere


def changed(form: Form, changes: Sequence[Change]) -> Form:
    """Return the `form` with the `changes` that a refusal asks for."""
    return replace(
        form,
        refused=form.refused | {change.name for change in changes if change.topic == "refused"},
        most={**form.most, **{change.name: change.value for change in changes if change.topic == "most"}},
        least={**form.least, **{change.name: change.value for change in changes if change.topic == "least"}},
        context=next((int(change.value) for change in changes if change.topic == "context"), form.context),
        density=next((change.value for change in changes if change.topic == "density"), form.density),
    )


def thinking(choices: Sequence[Choice], usage: Usage) -> int:
    """Return the tokens of thought in a reply: as `usage` counts them, else by the thoughts' share of the bytes."""
    if usage.reasoning_tokens:
        return usage.reasoning_tokens
    thought = sum(utf8_length(choice.reasoning) for choice in choices)
    answer = sum(utf8_length(choice.text) for choice in choices)
    return -(-usage.completion_tokens * thought // (thought + answer)) if thought else 0


def room_for(form: Form, choices: Sequence[Choice], usage: Usage) -> int | None:
    """Return the room, one of ROOMS, that a reply shows to be needed; None where it shows nothing.

    `form` is the one that it was asked in. A reply that was cut in its thoughts says only that there was too little;
    one whose answer was cut says nothing.
    """
    thought = thinking(choices, usage)
    if any(choice.finish == "length" for choice in choices):
        in_thought = thought or not any(choice.text.strip() for choice in choices)
        larger = (room for room in ROOMS if room > form.room)
        return next(larger, None) if in_thought else None
    return next((room for room in ROOMS if room >= _SPARE * thought), ROOMS[-1])


def words(facts: Sequence[Fact]) -> list[str]:
    """Return what `facts` say of an endpoint, for people: phrases that follow its name."""
    phrases = []
    rooms = {fact.name or "others": int(fact.value) for fact in facts if fact.topic == "room" and fact.value}
    for fact in facts:
        if fact.topic == "refused":
            instead = " but max_completion_tokens" if fact.name == LIMIT else ""
            phrases.append(f"takes no {fact.name}{instead}")
        elif fact.topic in {"most", "least"}:
            phrases.append(f"takes {fact.name} of {fact.value:,g} at {fact.topic}")
        elif fact.topic == "context":
            phrases.append(f"has a context of {fact.value:,.0f} tokens")
        elif fact.topic == "factor":
            phrases.append(f"counts up to {fact.value:.2f} times the {fact.name} tokens that were foreseen")
    if rooms:
        kinds = "" if len(set(rooms.values())) == 1 else f" ({', '.join(f'{k} {v:,}' for k, v in rooms.items())})"
        phrases.append(f"thinks: gets {max(rooms.values()):,} tokens of room beside each reply{kinds}")
    return phrases


def _named(facts: Mapping[tuple[str, str], Fact], topic: str) -> dict[str, float]:
    return {name: fact.value for (fact_topic, name), fact in facts.items() if fact_topic == topic}


def _is_news(known: Fact, fact: Fact) -> bool:
    if fact.topic == "most":
        return fact.value < known.value
    return fact.value != known.value if fact.topic == "context" else fact.value > known.value
