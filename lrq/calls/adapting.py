"""What calls teach of their endpoints: the form they want, how long they think, whether they read all they are sent.

All of it is kept in the ledger, so that it is learned once for all processes and runs.
"""

import itertools
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from lrq.calls.estimates import at_most
from lrq.calls.forms import Change, Form, changes, parameters
from lrq.calls.heads import Heads, Turn
from lrq.calls.learned import Learned, changed, room_for, words
from lrq.calls.outcomes import Outcome
from lrq.calls.pool import Forms, Pool
from lrq.config import Endpoint
from lrq.domain.records import Call, Usage
from lrq.ledger.learned import Fact

_AHEAD = 3  # calls of a model go first, by which it is seen how long it thinks …
_LEAD_SECONDS = 120.0  # … and others wait for them so long at most
_LONG = 4_000  # bytes of a prompt that is long enough to be cut
_UNLIKELY = 6.0  # bytes to a token: common texts have 3 to 5
_SHORTEST_CUT = 256  # tokens: no server has a smaller context
_MOST_COUNTS = 1000  # different ones that are remembered
_FEW = 3  # prompts that were counted too short, after which it is no accident whatever the counts are
_DENSER = 1.5  # times as many tokens to a byte are foreseen where a prompt and its room did not fit
_SURE = 5  # counts after which tokens to a byte are known well enough to refuse a prompt beforehand
_CERTAINLY = 0.75  # of the tokens that a prompt is likely to have

log = logging.getLogger(__name__)


@dataclass
class _Counted:
    """How a server counts a model's prompts."""

    tokens: int = 0
    bytes: int = 0
    replies: int = 0
    usual: Counter[int] = field(default_factory=Counter)  # tokens → how many ordinary prompts had so many
    # Hash of a long prompt of which few tokens were counted → its bytes and these tokens.
    doubtful: dict[int, tuple[int, int]] = field(default_factory=dict)

    @property
    def per_byte(self) -> float:
        return self.tokens / self.bytes

    def add(self, size: int, tokens: int) -> None:
        self.bytes += size
        self.tokens += tokens
        self.replies += 1
        if len(self.usual) < _MOST_COUNTS:
            self.usual[tokens] += 1

    def cut(self) -> list[tuple[int, int]]:
        """Return (bytes, tokens) of those of the `doubtful` that were cut.

        Empty while it may be chance, or a server that gives any number.
        """
        if self.replies < _FEW:
            return []
        unusual = [pair for pair in self.doubtful.values() if self.usual[pair[1]] < _FEW - 1]
        short = [pair for pair in unusual if 2 * pair[1] < pair[0] * self.per_byte]
        for _, tokens in short:
            equal = [pair for pair in short if abs(pair[1] - tokens) <= max(2, tokens // 100)]
            if len(equal) > 1:
                return equal
        return short if len(short) >= _FEW else []


class Adapting:
    """One process's view of its endpoints. What is `new` is to be written to the ledger."""

    def __init__(self, facts: Iterable[Fact] = ()) -> None:
        self.learned = Learned(facts)
        self.new: list[Fact] = []
        self._counted: defaultdict[tuple[str, str], _Counted] = defaultdict(_Counted)
        self._leads = Heads(_LEAD_SECONDS)
        self._turns = itertools.count()
        self._forms: dict[tuple[int, str, str, str], tuple[int, Forms]] = {}  # with the version of what was learned

    def forms(self, pool: Pool, call: Call, kind: str) -> Forms:
        """Return how each server of a pool is to be asked this call, by lane; `kind` is the prompt's."""
        name = id(pool), call.role, call.model, kind
        cached = self._forms.get(name)
        if cached is None or cached[0] != self.learned.version:
            forms = {line.lane.name: self.learned.form(line.endpoint, call, kind) for line in pool.lines}
            cached = self._forms[name] = self.learned.version, forms
        return cached[1]

    def lead(self, pool: Pool, call: Call, kind: str) -> Turn | None:
        """Return the call's turn among the first of a model, who go ahead while the others wait.

        None where it is known how long the model thinks about questions of this `kind`: nobody needs to wait.
        """
        if not self.is_unmeasured(pool, call, kind):
            return None
        return self._leads.named(hash((call.endpoint, call.model, next(self._turns) % _AHEAD)))

    def is_unmeasured(self, pool: Pool, call: Call, kind: str) -> bool:
        """Say whether it is not known yet how long the model thinks about its questions."""
        return bool(kind) and not all(self.learned.is_measured(line.endpoint, call) for line in pool.lines)

    def refused(self, endpoint: Endpoint, call: Call, kind: str, form: Form, outcome: Outcome) -> bool:
        """Learn from a refusal; returns whether the call is to be asked again in another form.

        `form` is the one that it was sent in. An `outcome` that is no refusal, or whose words name no parameter,
        teaches nothing: False.
        """
        request = parameters(call, form)
        requested = [] if outcome.kind == "ok" else changes(request, outcome.status, outcome.body)
        if not requested:
            return False
        if parameters(call, self.learned.form(endpoint, call, kind)) != request:
            return True  # another call was refused before, and taught as much
        if requested[0].topic == "context" and requested[0].value == form.context and form.room:
            requested = [Change(topic="density", name="", value=form.density * _DENSER)]
        helps = parameters(call, changed(form, requested)) != request
        for change in requested:
            if helps or change.topic == "context":
                fact = self._fact(endpoint, call, change.topic, change.name, change.value)
                self._note([replace(fact, reason=outcome.reason)])
        return helps

    def answered(self, endpoint: Endpoint, call: Call, kind: str, form: Form, outcome: Outcome) -> None:
        """Learn how much room the model's thoughts need beside a reply to this `kind` of question.

        `form` is the one that it was sent in. Nothing is learned where the settings say `reasoning_tokens` themselves.
        """
        if call.role == "policy" or call.api != "chat" or not kind or endpoint.reasoning_tokens is not None:
            return
        room = room_for(form, outcome.choices, outcome.usage)
        if room is not None and room > self.learned.known_room(endpoint, call.model, kind):
            self._note([self._fact(endpoint, call, "room", kind, room)])

    def overrun(self, endpoint: Endpoint, call: Call, form: Form, usage: Usage) -> bool:
        """Say whether `usage` is above what `form` allows for; bounds allow for as much from now on."""
        if usage.prompt_tokens <= call.size and usage.completion_tokens <= (call.max_tokens or 0):
            return False
        most = at_most(call, form)
        facts = []
        for name, factor in (("prompt", form.prompt_factor), ("completion", form.completion_factor)):
            count, bound = getattr(usage, f"{name}_tokens"), getattr(most, f"{name}_tokens")
            if count > bound:
                facts.append(self._fact(endpoint, call, "factor", name, factor * count / max(1, bound)))
        self._note(facts)
        return bool(facts)

    def cut_prompt(self, endpoint: Endpoint, call: Call, usage: Usage) -> str:
        """Say in words that the server has read less than it was sent; empty where it has not, or it may be chance.

        Two prompts of the same count, or any three, under half of what its counts of other prompts foretell; `usage` is
        the count of this one.
        """
        if not endpoint.prompt_check or call.api != "chat" or not usage.prompt_tokens:
            return ""
        counts = self._counted[endpoint.address, call.model]
        if call.size < _LONG or call.size < _UNLIKELY * usage.prompt_tokens:
            counts.add(call.size, usage.prompt_tokens)
        elif usage.prompt_tokens >= _SHORTEST_CUT and not usage.cached_tokens:  # some count only what is not cached
            question = hash(tuple(message["content"] for message in call.messages))
            counts.doubtful[question] = call.size, usage.prompt_tokens
        if not counts.doubtful or not (cut := counts.cut()):
            return ""
        counts.doubtful.clear()
        size, tokens = cut[-1]
        return (
            f"the {call.role} has cut what it was sent: it counted {tokens:,} tokens of a prompt of {size:,} bytes, "
            f"which are about {round(size * counts.per_byte):,}; raise the server's context (num_ctx of Ollama) or "
            f"use another model; {call.role}.prompt_check=false turns this check off"
        )

    def too_long(self, pool: Pool, call: Call, forms: Forms) -> str:
        """Say why a prompt is certain not to fit at any server of the pool; empty where it may.

        `forms` hold their contexts, by lane. A server that has counted few prompts yet gets the benefit of the doubt.
        """
        tokens = context = 0
        for line in pool.lines:
            counts, context = self._counted[line.endpoint.address, call.model], forms[line.lane.name].context
            if not context or counts.replies < _SURE:
                return ""
            tokens = round(call.size * counts.tokens / counts.bytes)
            if tokens * _CERTAINLY <= context:
                return ""
        return f"too long: about {tokens:,} tokens, and {call.model} has a context of {context:,}; it was not sent"

    def merge(self, facts: Iterable[Fact]) -> None:
        """Take in what other processes have learned."""
        for fact in facts:
            self.learned.note(fact)

    def has_context(self, endpoint: Endpoint, model: str, tokens: int) -> None:
        """Note that the server's list of models names a context of so many `tokens`, prompt and reply together."""
        fact = Fact(server=endpoint.address, model=model, topic="context", name="", value=float(tokens))
        self._note([fact])

    def _fact(self, endpoint: Endpoint, call: Call, topic: str, name: str, value: float) -> Fact:
        return Fact(server=endpoint.address, model=call.model, topic=topic, name=name, value=float(value))

    def _note(self, facts: Iterable[Fact]) -> None:
        news = [fact for fact in facts if self.learned.note(fact)]
        for fact in news:
            if fact.topic != "room" or fact.value:
                log.info("learned: %s at %s %s", fact.model, fact.server, "; ".join(words([fact])))
        self.new += news
