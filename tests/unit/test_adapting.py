"""What calls teach of their endpoints."""

from dataclasses import replace
from typing import Any

import pytest

from lrq.calls.adapting import Adapting
from lrq.calls.forms import PLAIN, Form, parameters
from lrq.calls.learned import room_for, thinking, words
from lrq.calls.limiter import Lane, Limits
from lrq.calls.outcomes import Outcome
from lrq.calls.pool import Line, Pool
from lrq.config import Endpoint
from lrq.domain.records import Call, Choice, Usage

ENDPOINT = Endpoint(url="http://judge:8000/v1", model="m")
CALL = Call(
    role="judge",
    endpoint="default",
    model="m",
    messages=({"role": "user", "content": "word " * 2000},),
    temperature=0.01,
    max_tokens=512,
)


def pool(endpoint: Endpoint = ENDPOINT) -> Pool:
    return Pool([Line(endpoint, Lane(name="lane", limits=Limits()), None)], None)  # type: ignore[arg-type]


def refusal(message: str) -> Outcome:
    return Outcome(kind="refused", status=400, reason=f"HTTP 400: {message}", body={"error": {"message": message}})


def reply(text: str = "[[7]]", reasoning: str = "", finish: str = "stop", **usage: int) -> Outcome:
    choices = [Choice(text=text, reasoning=reasoning, finish=finish)]
    return Outcome(kind="ok", choices=choices, usage=Usage(**usage))


def test_a_refused_parameter_is_learned_once_and_by_all_kinds() -> None:
    """The second call that was refused in the old form is asked again too, and teaches nothing more."""
    adapting = Adapting()
    outcome = refusal("'temperature' is not supported")
    assert adapting.refused(ENDPOINT, CALL, "support", PLAIN, outcome)
    assert adapting.refused(ENDPOINT, CALL, "support", PLAIN, outcome)
    assert [(fact.topic, fact.name) for fact in adapting.new] == [("refused", "temperature")]
    form = adapting.learned.form(ENDPOINT, CALL, "statements")
    assert "temperature" not in parameters(CALL, form)
    assert not adapting.refused(ENDPOINT, CALL, "support", form, outcome)
    assert words(adapting.learned.about(ENDPOINT, "m")) == ["takes no temperature"]


def test_what_is_learned_holds_for_one_server_and_model() -> None:
    """Another process reads it; other servers and models are as they were."""
    adapting = Adapting()
    adapting.refused(ENDPOINT, CALL, "", PLAIN, refusal("'temperature' is not supported"))
    other = Adapting(adapting.new)
    assert other.learned.form(ENDPOINT, CALL, "").refused == {"temperature"}
    assert other.learned.form(ENDPOINT, replace(CALL, model="n"), "").refused == frozenset()
    elsewhere = Endpoint(url="http://judge:8001/v1", model="m")
    assert other.learned.form(elsewhere, CALL, "").refused == frozenset()


def test_a_prompt_and_its_room_are_fitted_into_the_context() -> None:
    """First by the usual length of tokens, then by denser ones; a prompt that cannot fit is refused for good."""
    adapting = Adapting()
    adapting.answered(ENDPOINT, CALL, "support", PLAIN, reply(reasoning="hm " * 900, completion_tokens=1000))
    too_long = refusal("maximum context length is 4000 tokens")
    limits = []
    for _ in range(9):
        form = adapting.learned.form(ENDPOINT, CALL, "support")
        limits.append(parameters(CALL, form)["max_tokens"])
        if not adapting.refused(ENDPOINT, CALL, "support", form, too_long):
            break
    assert limits == [4608, 1000, 512]


@pytest.mark.parametrize(
    ("outcome", "form", "room"),
    [
        (reply(completion_tokens=20), PLAIN, 0),
        (reply(completion_tokens=200, reasoning_tokens=150), PLAIN, 4096),
        (reply(completion_tokens=3000, reasoning_tokens=2900), PLAIN, 16_384),
        (reply("[[3]] and so", finish="length", completion_tokens=512), PLAIN, None),
        (reply("", "hm " * 500, finish="length", completion_tokens=512), PLAIN, 4096),
        (reply("", finish="length", completion_tokens=4608), Form(room=4096), 16_384),
        (reply("", finish="length", completion_tokens=4608), Form(room=65_536), None),
    ],
)
def test_room_follows_the_longest_thought(outcome: Outcome, form: Form, room: int | None) -> None:
    """A reply that is cut in its thoughts shows that there was too little; one that is cut in its answer, nothing."""
    assert room_for(form, outcome.choices, outcome.usage) == room


def test_thoughts_are_counted_by_bytes_where_the_server_does_not() -> None:
    """Their share of the completion."""
    assert thinking([Choice(text="x" * 100, reasoning="y" * 300)], Usage(completion_tokens=80)) == 60
    assert thinking([Choice(text="x")], Usage(completion_tokens=80)) == 0


def test_a_judge_s_first_calls_go_ahead_until_it_is_known_how_long_it_thinks() -> None:
    """Once known it is for all kinds; where the settings name the room, nobody waits."""
    adapting = Adapting()
    assert adapting.lead(pool(), CALL, "support") is not None
    adapting.answered(ENDPOINT, CALL, "support", PLAIN, reply(completion_tokens=9))
    assert adapting.lead(pool(), CALL, "statements") is None
    told = ENDPOINT.model_copy(update={"reasoning_tokens": 900})
    fresh = Adapting()
    assert fresh.lead(pool(told), CALL, "support") is None
    assert fresh.learned.form(told, CALL, "support").room == 900
    assert fresh.learned.form(told, replace(CALL, role="policy"), "sample").room == 0


def test_counts_above_the_bound_raise_it_for_good() -> None:
    """A factor for each side, which later bounds hold."""
    adapting = Adapting()
    usage = Usage(prompt_tokens=30_192, completion_tokens=1024)
    assert adapting.overrun(ENDPOINT, CALL, PLAIN, usage)
    form = adapting.learned.form(ENDPOINT, CALL, "")
    assert (form.prompt_factor, form.completion_factor) == (3.0, 2.0)
    assert not adapting.overrun(ENDPOINT, CALL, form, usage)


def prompt(words_: int) -> Call:
    return replace(CALL, messages=({"role": "user", "content": "word " * words_},))


def seen(adapting: Adapting, *counts: tuple[int, int], endpoint: Endpoint = ENDPOINT) -> list[str]:
    found = (adapting.cut_prompt(endpoint, prompt(n), Usage(prompt_tokens=tokens)) for n, tokens in counts)
    return [text for text in found if text]


@pytest.mark.parametrize(
    ("counts", "is_noticed"),
    [
        ([(200, 250), (210, 260), (220, 270), (3000, 1000), (3300, 1000)], True),  # the same number again
        ([(3000, 1000), (3300, 1000), (200, 250), (210, 260), (220, 270)], True),  # whichever came first
        ([(200, 250), (210, 260), (220, 270), (3000, 1000)], False),  # once may be chance
        ([(200, 250), (210, 260), (220, 270), (3000, 1000), (3000, 1000)], False),  # the same prompt again
        ([(200, 250), (210, 260), (220, 270), (3000, 1000), (3300, 1200), (3600, 1400)], True),  # three of them
        ([(3000, 3100), (3300, 3400), (3600, 3700), (3900, 4000)], False),
        ([(200, 1000), (210, 1000), (220, 1000), (3000, 1000), (3300, 1000)], False),  # it counts anything the same
        ([(200, 50), (210, 50), (220, 50), (3000, 50), (3300, 50)], False),
    ],
)
def test_a_judge_that_counts_far_too_few_tokens_has_cut_its_prompt(
    counts: list[tuple[int, int]], is_noticed: bool
) -> None:
    """Under half of what its own counts foretell, more than once."""
    assert bool(seen(Adapting(), *counts)) == is_noticed


def test_the_check_of_prompts_can_be_turned_off() -> None:
    """For servers with a way of their own to count."""
    off = ENDPOINT.model_copy(update={"prompt_check": False})
    assert seen(Adapting(), (3000, 1000), (3300, 1000), (3600, 1000), endpoint=off) == []


def test_a_prompt_that_cannot_fit_is_not_sent() -> None:
    """Where the context is known, and how the server counts; near the edge the server decides."""
    adapting = Adapting()
    adapting.has_context(ENDPOINT, "m", 2000)
    servers = pool()

    def why(words_: int) -> Any:
        call = prompt(words_)
        return adapting.too_long(servers, call, adapting.forms(servers, call, ""))

    assert why(9000) == ""
    seen(adapting, *((200 + number, 200 + number) for number in range(5)))
    assert "context of 2,000" in why(9000)
    assert why(2200) == ""
