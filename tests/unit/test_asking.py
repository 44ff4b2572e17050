"""Re-asks of the judge: temperatures, limits, filters, series."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from lrq.domain.errors import CallFailed, CallRefused, RunHalted, Stopping, Unreadable, Unscored
from lrq.domain.marks import read_extraction, read_score
from lrq.domain.records import Call, Choice, Purpose, Reply
from lrq.judge.asking import Asker, JudgeModel


@dataclass
class Judge:
    """Answers the n-th call as `says` has it: a text, a choice, or an exception; keeps what it was asked.

    What series below `known` ask stands in the ledger.
    """

    says: Callable[[Call], Any]
    known: int = 0
    calls: list[Call] = field(default_factory=list)
    purposes: list[Purpose] = field(default_factory=list)

    async def call(self, call: Call, purpose: Purpose) -> Reply:
        self.calls.append(call)
        self.purposes.append(purpose)
        said = self.says(call)
        if isinstance(said, Exception):
            raise said
        choice = said if isinstance(said, Choice) else Choice(text=said)
        return Reply(key=f"{call.series}.{call.attempt}", choices=[choice], reused=call.series < self.known)


def asker(judge: Judge, extra: Mapping[str, Any] | None = None, **fields: Any) -> Asker:
    model = JudgeModel(endpoint="e", model="m", extra=extra or {})
    return Asker(caller=judge, models=lambda _dimension, _prompt: model, purpose=Purpose(run=1), **fields)


async def score(judge: Judge, **fields: Any) -> Any:
    return await asker(judge, **fields)("helpfulness", "prompt", read_score, dimension="helpfulness", max_tokens=512)


async def test_the_first_readable_reply_counts() -> None:
    """Asked once at 0.01, with the prompt as its only message, for the dimension and kind that ask."""
    judge = Judge(lambda _: "Good. [[7]]")
    answer = await score(judge, extra={"reasoning_effort": "low"})
    assert (answer.value, answer.text, answer.calls) == (7.0, "Good. [[7]]", ("0.0",))
    (call,) = judge.calls
    assert (call.temperature, call.max_tokens, call.attempt, call.series) == (0.01, 512, 0, 0)
    assert call.messages == ({"role": "user", "content": "prompt"},)
    assert call.extra == {"reasoning_effort": "low"}
    assert (judge.purposes[0].dimension, judge.purposes[0].kind) == ("helpfulness", "helpfulness")


async def test_a_method_may_say_how_the_judge_is_sampled() -> None:
    """All its attempts, each of them a question of its own."""
    judge = Judge(lambda call: "[[7]]" if call.attempt == 2 else "none")
    sampling = {"temperature": 1.0, "top_p": 0.9}
    await asker(judge)("rubric", "prompt", read_score, dimension="rubric", max_tokens=512, sampling=sampling)  # type: ignore[arg-type]
    assert [(call.temperature, call.top_p, call.attempt) for call in judge.calls] == [(1.0, 0.9, n) for n in range(3)]


async def test_an_unreadable_reply_is_asked_again_warmer_five_times_in_all() -> None:
    """0.01, then 0.95 four times, each an attempt of its own; then it is unscored with the last problem."""
    judge = Judge(lambda _: "[[85]]")
    with pytest.raises(Unscored, match=r"helpfulness, helpfulness: no readable reply in 5 attempts: .*85.* outside"):
        await score(judge)
    assert [call.temperature for call in judge.calls] == [0.01, 0.95, 0.95, 0.95, 0.95]
    assert [call.attempt for call in judge.calls] == [0, 1, 2, 3, 4]


async def test_the_calls_of_all_attempts_are_kept() -> None:
    """The third is readable: three keys stand in the answer."""
    judge = Judge(lambda call: "[[8]]" if call.attempt == 2 else "no mark")
    assert (await score(judge)).calls == ("0.0", "0.1", "0.2")


async def test_a_reply_cut_by_its_length_is_no_answer_and_gets_twice_the_room() -> None:
    """Even where the cut text holds a mark."""
    judge = Judge(lambda call: Choice(text="[[3]] but", finish="length") if call.attempt < 2 else "[[9]]")
    assert (await score(judge)).value == 9.0
    assert [call.max_tokens for call in judge.calls] == [512, 1024, 2048]


async def test_a_judge_that_is_always_cut_is_unscored_and_says_why() -> None:
    """512 doubled four times is 8192; there it ends."""
    judge = Judge(lambda _: Choice(text="", reasoning="so long", finish="length"))
    with pytest.raises(Unscored, match="cut by its length"):
        await score(judge)
    assert judge.calls[-1].max_tokens == 8192


@pytest.mark.parametrize("finish", ["content_filter", "sensitive", "SAFETY", "content_filter: VIOLENCE"])
async def test_a_filter_s_notice_is_never_an_answer(finish: str) -> None:
    """Not even where it has the form of one."""
    judge = Judge(lambda _: Choice(text="- This was removed.", finish=finish))
    with pytest.raises(Unscored, match="content filter"):
        await asker(judge)("extraction", "p", read_extraction, dimension="completeness", max_tokens=1024)
    assert len(judge.calls) == 5


@pytest.mark.parametrize("finish", ["abort", "error", "network_error", "tool_calls", "a word of tomorrow"])
async def test_only_a_known_end_is_an_end(finish: str) -> None:
    """A reply that stopped for any other reason is asked again, in the same room, though it may hold a mark."""
    judge = Judge(lambda call: "[[9]]" if call.attempt else Choice(text="[[3]] at first", finish=finish))
    assert (await score(judge)).value == 9.0
    assert [call.max_tokens for call in judge.calls] == [512, 512]
    with pytest.raises(Unscored, match=f"unfinished: finish_reason {finish}"):
        await score(Judge(lambda _: Choice(text="[[3]]", finish=finish)))


@pytest.mark.parametrize("finish", ["end_turn", "STOP", "eos_token", "COMPLETE", "stop_sequence"])
async def test_the_end_has_many_names(finish: str) -> None:
    """Each server's own is one."""
    judge = Judge(lambda _: Choice(text="[[3]]", finish=finish))
    assert (await score(judge)).value == 3.0
    assert len(judge.calls) == 1


async def test_max_tokens_is_a_length_too() -> None:
    """Google's word for it gets twice the room as well."""
    judge = Judge(lambda call: "[[9]]" if call.attempt else Choice(text="[[3", finish="MAX_TOKENS"))
    assert (await score(judge)).value == 9.0
    assert [call.max_tokens for call in judge.calls] == [512, 1024]


async def test_a_refusal_is_no_answer_and_its_words_are_the_reason() -> None:
    """However it reads."""
    with pytest.raises(Unscored, match=r"the judge refuses: I will not\. "):
        await score(Judge(lambda _: Choice(text="I will not. [[7]]", finish="refusal")))


async def test_reasoning_is_not_read() -> None:
    """A mark in the reasoning is none; the answer's alone counts."""
    judge = Judge(lambda call: Choice(text="[[4]]" if call.attempt else "", reasoning="I think [[9]]"))
    assert (await score(judge)).value == 4.0


@pytest.mark.parametrize("error", [CallRefused("too long"), CallFailed("HTTP 500 (8 tries)")])
async def test_a_call_that_has_no_reply_is_unscored_at_once(error: Exception) -> None:
    """The client has tried what could be tried: no further attempt is bought."""
    judge = Judge(lambda _: error)
    with pytest.raises(Unscored, match=str(error).split(" (", maxsplit=1)[0]):
        await score(judge)
    assert len(judge.calls) == 1


@pytest.mark.parametrize("error", [RunHalted("paused"), Stopping()])
async def test_a_halt_is_no_score(error: Exception) -> None:
    """The task goes back and is done later; nothing is marked as unscored."""
    with pytest.raises(type(error)):
        await score(Judge(lambda _: error))


async def test_a_later_series_reads_the_earlier_replies_first() -> None:
    """What was readable then is not asked anew; only after five unreadable ones does the new series ask."""
    judge = Judge(lambda call: "[[6]]" if call.series == 1 else "unreadable", known=1)
    answer = await score(judge, series=1)
    assert answer.value == 6.0
    assert [(call.series, call.attempt) for call in judge.calls] == [(0, n) for n in range(5)] + [(1, 0)]
    readable = Judge(lambda _: "[[5]]")
    await score(readable, series=3)
    assert [(call.series, call.attempt) for call in readable.calls] == [(0, 0)]


async def test_a_series_asks_again_what_failed_in_the_one_before() -> None:
    """Also where the failure came in the middle; the last series' reason is the one that is kept."""
    judge = Judge(lambda call: CallFailed(f"down in {call.series}", is_new=call.series == 2))
    with pytest.raises(Unscored, match="down in 2"):
        await score(judge, series=2)
    assert [call.series for call in judge.calls] == [0, 1, 2]


@pytest.mark.parametrize("says", ["unreadable", CallFailed("down")])
async def test_a_question_that_is_new_is_asked_in_one_series_alone(says: Any) -> None:
    """However often the run's unscored were retried before: a line added later is not asked four times over."""
    judge = Judge(lambda _: says)
    with pytest.raises(Unscored):
        await score(judge, series=3)
    assert {call.series for call in judge.calls} == {0}


async def test_what_the_reader_raises_besides_is_not_swallowed() -> None:
    """A mistake in a recipe is no unreadable reply."""

    def broken(_: str) -> float:
        raise KeyError("mistake")

    with pytest.raises(KeyError):
        await asker(Judge(lambda _: "x"))("k", "p", broken, dimension="d", max_tokens=1)


async def test_unreadable_is_the_reader_s_word() -> None:
    """Its text becomes part of the reason."""

    def strict(_: str) -> float:
        raise Unreadable("not in verse")

    with pytest.raises(Unscored, match="not in verse"):
        await asker(Judge(lambda _: "x"))("k", "p", strict, dimension="d", max_tokens=1)
