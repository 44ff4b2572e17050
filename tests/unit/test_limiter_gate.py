"""The limiter's rules that need no Redis: headers, order of waiting, grants, reports."""

import asyncio
from typing import Any

import pytest

from lrq.calls.limiter.gate import HEARTBEAT, QUANTUM, Gate
from lrq.calls.limiter.headers import Seen, read_duration, read_headers
from lrq.calls.limiter.records import Lane, Limits, Permit
from lrq.calls.limiter.report import Report
from lrq.calls.limiter.waiting import Waiter, Waiting


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("6m0s", 360), ("20ms", 0.02), ("1h2m3.5s", 3723.5), ("1.5", 1.5), ("", None), ("soon", None)]
    + [(text, None) for text in ("inf", "nan", "-inf", "9" * 400 + "s")],
)
def test_durations_are_read(text: str, seconds: float | None) -> None:
    """A reset may be written as a duration with units or as plain seconds; anything else is unknown."""
    assert read_duration(text) == (None if seconds is None else pytest.approx(seconds))


def test_openai_headers_are_read() -> None:
    """Limits on requests and tokens come with what remains and when they are whole again."""
    headers = {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "150000",
    }
    assert read_headers(headers) == {
        "requests": Seen(limit=60, remaining=59, reset=1.0),
        "tokens": Seen(limit=150000, remaining=None, reset=None),
    }


def test_anthropic_headers_are_read() -> None:
    """Anthropic names the kind before the word, and gives the reset as a date."""
    seen = read_headers(
        {
            "anthropic-ratelimit-requests-limit": "50",
            "anthropic-ratelimit-requests-remaining": "0",
            "anthropic-ratelimit-requests-reset": "2001-01-01T00:00:00Z",
        }
    )
    assert (seen["requests"].limit, seen["requests"].remaining) == (50, 0)
    assert seen["requests"].reset is not None
    assert seen["requests"].reset < 0


def test_headers_that_say_nothing_teach_nothing() -> None:
    """A limit of zero, of no number, or none at all is no limit."""
    assert read_headers({"x-ratelimit-limit-requests": "0", "x-ratelimit-limit-tokens": "many"}) == {}
    assert read_headers({"x-ratelimit-limit-requests": "9" * 20}) == {}  # more than the poll could carry


def waiter(run: int = 1, *, started: bool = False, tokens: int = 10) -> Waiter:
    return Waiter(run, started, tokens, asyncio.get_running_loop().create_future())


async def test_started_items_go_first_then_first_come_first_served() -> None:
    """Within a run a call of a started item overtakes those of fresh ones, but not those of its own kind."""
    waiting = Waiting()
    calls = [waiter(started=started) for started in (False, True, False, True)]
    for call in calls:
        waiting.add(call)
    order = []
    while first := waiting.first(1):
        order.append(calls.index(first))
        waiting.remove(first)
    assert order == [1, 3, 0, 2]


async def test_who_leaves_is_not_waiting() -> None:
    """A call can leave from the middle of a line, once."""
    waiting = Waiting()
    calls = [waiter() for _ in range(3)]
    for call in calls:
        waiting.add(call)
    assert waiting.remove(calls[1])
    assert not waiting.remove(calls[1])
    assert len(waiting) == 2
    (want,) = waiting.wants(5, {})
    assert (want["waiting"], want["costs"]) == (2, [10, 10])


async def test_a_poll_names_the_costs_of_those_that_go_first() -> None:
    """However many wait, a poll names a bounded number of them, started ones first."""
    waiting = Waiting()
    for tokens in range(100):
        waiting.add(waiter(started=tokens == 99, tokens=tokens))
    (want,) = waiting.wants(3, {})
    assert (want["waiting"], want["costs"]) == (100, [99, 0, 1])


def reply(grants: list[list[int]], *, slots: int = 100, held_up: str | None = None) -> dict[str, Any]:
    rate = {"used": 0, "limit": 1000}
    view = {"requests": rate, "tokens": rate, "in_flight": 0, "waiting": 0, "paused": 0}
    own = {"requests": 5, "tokens": 50}
    return {"grants": grants, "slots": slots, "bucket": 7, "wait": 0.1, "held_up": held_up, "own": own, "view": view}


def polled_gate(calls: list[Waiter], answer: dict[str, Any]) -> Gate:
    gate = Gate(Lane(name="lane", limits=Limits(rpm=1000)))
    for call in calls:
        gate.join(call)
    gate.ask(now=100.0)
    gate.heed(answer, now=100.0)
    return gate


async def test_no_call_goes_without_a_grant() -> None:
    """Before the first poll nobody goes."""
    gate = Gate(Lane(name="lane"))
    gate.join(waiter())
    assert gate.let_through(now=0.0)
    assert gate.in_flight == 0


async def test_a_grant_lets_through_as_many_as_it_says() -> None:
    """Two calls of run 1 and one of run 2, and no more, whoever waits."""
    calls = [waiter(run=1), waiter(run=1), waiter(run=1), waiter(run=2), waiter(run=2)]
    gate = polled_gate(calls, reply([[1, 2, 20], [2, 1, 10]]))
    gate.let_through(now=100.0)
    assert [call.permit is not None for call in calls] == [True, True, False, True, False]


async def test_a_call_cancelled_in_line_is_passed_over() -> None:
    """Its future is cancelled but its task has not run yet: the permit goes to the next."""
    calls = [waiter(), waiter()]
    gate = polled_gate(calls, reply([[1, 1, 10]]))
    calls[0].future.cancel()
    gate.let_through(now=100.0)
    assert calls[0].permit is None
    assert calls[1].permit
    assert gate.in_flight == 1


async def test_slots_are_shared_in_turn_between_runs() -> None:
    """Where there are fewer slots than granted calls, the runs take turns."""
    calls = [waiter(run=1), waiter(run=1), waiter(run=2), waiter(run=2)]
    gate = polled_gate(calls, reply([[1, 2, 20], [2, 2, 20]], slots=2))
    gate.let_through(now=100.0)
    assert [call.permit is not None for call in calls] == [True, False, True, False]


async def test_tokens_of_a_grant_are_not_exceeded() -> None:
    """A dearer call that came first in the meantime waits for its own grant."""
    calls = [waiter(tokens=10)]
    gate = polled_gate(calls, reply([[1, 1, 10]]))
    gate.join(dear := waiter(started=True, tokens=90))
    gate.let_through(now=100.0)
    assert (dear.permit, calls[0].permit, gate.in_flight) == (None, None, 0)


async def test_a_grant_grows_stale() -> None:
    """What is left of a grant after 250 ms is not used, but given back by the next poll."""
    gate = polled_gate([waiter()], reply([[1, 1, 10]]))
    gate.let_through(now=100.0 + QUANTUM)
    assert gate.in_flight == 0
    report = gate.ask(now=101.0)["report"]
    assert report["corrections"] == [{"bucket": 7, "requests": -1, "tokens": -10}]
    assert report["unused"] == [{"run": "1", "calls": 1}]


async def test_a_lost_poll_stops_everything_and_is_told_again() -> None:
    """While Redis is away nothing goes, and the report it may not have had is sent with the same number."""
    calls = [waiter(), waiter()]
    gate = polled_gate(calls, reply([[1, 1, 10]]))
    gate.let_through(now=100.0)
    assert calls[0].permit
    settle(gate, calls[0].permit, tokens=30)
    first = gate.ask(now=100.1)
    gate.lose()
    gate.let_through(now=100.1)
    assert gate.in_flight == 0
    second = gate.ask(now=100.2)
    assert (first["seq"], first["report"]) == (second["seq"], second["report"])
    assert first["report"]["corrections"] == [{"bucket": 7, "requests": 0, "tokens": 20}]
    gate.heed(reply([]), now=100.2)
    assert gate.ask(now=100.3)["seq"] == first["seq"] + 1


async def test_a_429_returns_what_was_granted() -> None:
    """The process that sees a 429 begins no further call on the grant it has in hand."""
    calls = [waiter(), waiter()]
    gate = polled_gate(calls, reply([[1, 2, 20]], slots=1))
    gate.let_through(now=100.0)
    assert calls[0].permit
    settle(gate, calls[0].permit, status="throttled", retry_after=3.0)
    gate.let_through(now=100.0)
    assert calls[1].permit is None
    assert gate.ask(now=100.0)["report"]["throttled"] == {"bucket": 7, "after": 3.0}


def settle(gate: Gate, permit: Permit, *, tokens: int | None = None, status: Any = "ok", **more: Any) -> None:
    given = {"headers": {}, "latency": 0.1, "retry_after": None} | more
    gate.settle(permit, tokens=tokens, status=status, **given)


async def test_steady_arrivals_are_asked_for_ahead() -> None:
    """Ten calls in 100 ms let a poll ask for about as many more; when none came it asks for none."""
    gate = polled_gate([], reply([]))
    for poll in range(1, 30):
        for _ in range(10):
            gate.join(waiter(tokens=7))
        ask = gate.ask(now=100.0 + 0.1 * poll)
        gate.heed(reply([[1, 10, 70]], slots=1000), now=100.0 + 0.1 * poll)
        gate.let_through(now=100.0 + 0.1 * poll)
    assert ask["wants"][0]["each"] == 7
    assert 10 <= ask["wants"][0]["spare"] <= 16
    assert gate.ask(now=103.1)["wants"] == []


async def test_an_idle_gate_does_not_poll() -> None:
    """With nobody waiting, nothing in flight and nothing to report there is no next poll; in flight: a heartbeat."""
    calls = [waiter()]
    gate = polled_gate(calls, reply([[1, 1, 10]]))
    gate.let_through(now=100.0)
    assert gate.next_poll() == HEARTBEAT
    assert calls[0].permit
    settle(gate, calls[0].permit)
    assert gate.next_poll() is not None
    gate.ask(now=100.2)
    gate.heed(reply([]), now=100.2)
    assert gate.next_poll() is None


def permit(bucket: int = 3, tokens: int = 100) -> Permit:
    return Permit("lane", 1, tokens, bucket, own_requests=40, own_tokens=4000)


@pytest.mark.parametrize(
    ("status", "tokens", "requests", "charge"),
    [
        ("ok", 130, 0, 30),  # dearer than expected
        ("ok", None, 0, 0),  # not counted: the expected number stays
        ("throttled", None, -1, -100),  # the server did not count it
        ("unsent", 0, -1, -100),
        ("failed", None, 0, 0),  # it may have been counted
        ("other", 0, 0, -100),
    ],
)
def test_what_a_settled_call_changes_in_the_log(status: Any, tokens: int | None, requests: int, charge: int) -> None:
    """Requests and tokens are corrected in the bucket of the grant."""
    report = Report()
    report.add(permit(), tokens, status, {}, 0.1)
    assert report.as_json()["corrections"] == [{"bucket": 3, "requests": requests, "tokens": charge}]


def test_a_report_adds_up() -> None:
    """Latency and tokens of replies, failures, and the latest headers with what was our own at their grant."""
    report = Report()
    report.add(permit(bucket=3), 120, "ok", {"x-ratelimit-limit-requests": "60"}, 0.5)
    report.add(permit(bucket=2), 80, "ok", {"x-ratelimit-limit-requests": "50"}, 0.25)
    report.add(permit(bucket=5), None, "failed", {}, 9.0)
    said = report.as_json()
    assert said["done"] == {"count": 2, "work": 200, "time": 0.75}
    assert said["failed"] == {"count": 1, "bucket": 5}
    assert said["headers"] == {"requests": {"limit": 60, "own": 40}}
    assert said["answered"] == 2


def test_a_429_names_the_limit_that_is_used_up() -> None:
    """Of two limits in the headers it is the one of which less remains; too little for this call explains the 429."""
    headers = {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "55",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "90",
    }
    for tokens, is_explained in ((100, True), (50, False)):
        report = Report()
        report.add(permit(tokens=tokens), None, "throttled", headers, 0.1)
        assert report.as_json()["throttled"] == {"bucket": 3, "name": "tokens", "explained": is_explained}


def test_the_longest_wait_of_several_429s_counts() -> None:
    """Two 429s in one report make one event with the longer Retry-After and the later grant."""
    report = Report()
    for bucket, seconds in ((4, 9.0), (6, 2.0)):
        report.add(permit(bucket=bucket), None, "throttled", {}, 0.1)
        report.wait_after_429(seconds)
    assert report.as_json()["throttled"] == {"bucket": 6, "after": 9.0}
