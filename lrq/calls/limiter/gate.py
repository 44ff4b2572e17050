"""One process's end of a lane: who waits, what is in flight, and what of the last grant is left. No I/O."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lrq.calls.limiter.records import Lane, LaneView, Outcome, Permit, read_view
from lrq.calls.limiter.report import Report
from lrq.calls.limiter.waiting import Spare, Waiter, Waiting

QUANTUM = 0.25  # seconds a grant may be used; what is left of it then goes back
HEARTBEAT = 3.0  # seconds between polls of a process that only has calls in flight: a quarter of its lease
QUIET = 0.1  # seconds after which settled calls are reported if nothing is more urgent
FEWEST_COSTS = 16  # calls named in a poll at least; twice what was granted last, if that is more


@dataclass(slots=True)
class _Arrivals:
    """Calls of one run that came since the last poll."""

    calls: int = 0
    tokens: int = 0


@dataclass(slots=True)
class _Credit:
    """What is left of a grant to one run."""

    calls: int
    tokens: int


class Gate:
    """Decides which waiting call goes next. Times are seconds of one monotonic clock, given by the caller."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.waiting = Waiting()
        self.in_flight = 0
        self.view: LaneView | None = None
        self._slots = 0
        self._credits: dict[int, _Credit] = {}
        self._bucket = 0
        self._own = (0, 0)
        self._usable_until = 0.0
        self._wait = 0.0
        self._held_up: str | None = None  # "rate" or "slot": why those who wait were not all let through
        self._report = Report()
        self._unconfirmed: Report | None = None
        self._seq = 0
        self._asked = 0.0
        self._finished = 0  # calls since the last poll
        self._pace = 0.0  # calls finished a second
        self._granted = 0  # by the last poll
        self._arrivals: dict[int, _Arrivals] = {}
        self._coming = 0.0  # calls that come a second

    def join(self, waiter: Waiter) -> None:
        """Begin to wait; `let_through` sets the future of the `waiter`."""
        self.waiting.add(waiter)
        arrivals = self._arrivals.setdefault(waiter.run, _Arrivals())
        arrivals.calls += 1
        arrivals.tokens += waiter.tokens

    def let_through(self, now: float) -> bool:
        """Give permits to those who may go at `now`. True: calls still wait, and only another poll can help them."""
        while now < self._usable_until and self.in_flight < self._slots:
            if not [run for run, credit in self._credits.items() if self._admit(run, credit)]:
                break
        return len(self.waiting) > 0 and self._held_up != "rate" and not self._has_credit()

    def _has_credit(self) -> bool:
        return any(credit.calls for credit in self._credits.values())

    def _admit(self, run: int, credit: _Credit) -> bool:
        waiter = self.waiting.first(run)
        if not waiter or not credit.calls or self.in_flight >= self._slots:
            return False
        if waiter.tokens > credit.tokens and self.view and self.view.tokens.limit is not None:
            return False
        credit.calls -= 1
        credit.tokens -= waiter.tokens
        self._begin(waiter)
        return True

    def _begin(self, waiter: Waiter) -> None:
        self.waiting.remove(waiter)
        self.in_flight += 1
        requests, tokens = self._own
        waiter.permit = Permit(self.lane.name, waiter.run, waiter.tokens, self._bucket, requests, tokens)
        waiter.future.set_result(waiter.permit)

    def settle(
        self,
        permit: Permit,
        *,
        tokens: int | None,
        status: Outcome,
        headers: Mapping[str, str],
        latency: float,
        retry_after: float | None,
    ) -> None:
        """Take a permit back, and note what came of it for the next report; arguments as of `Limiter.settle`."""
        permit.settled = True
        self.in_flight -= 1
        self._finished += 1
        self._report.add(permit, tokens, status, headers, latency)
        if status == "throttled":
            self._return_credits()
            if retry_after is not None:
                self._report.wait_after_429(retry_after)

    def _return_credits(self) -> None:
        for run, credit in self._credits.items():
            if credit.calls or credit.tokens:
                self._report.give_back(run, self._bucket, credit.calls, credit.tokens)
        self._credits = {}

    def ask(self, now: float) -> dict[str, Any]:
        """Return what this process says in a poll; `heed` or `lose` has to follow."""
        self._return_credits()
        elapsed = max(now - self._asked, 0.01)
        self._pace += 0.3 * (self._finished / elapsed - self._pace)
        spare = self._expect(elapsed)
        self._finished, self._asked, self._arrivals = 0, now, {}
        if self._unconfirmed is None:
            self._unconfirmed, self._report = self._report, Report()
            self._seq += 1
        limits = self.lane.limits
        by_name = {"requests": limits.rpm, "tokens": limits.tpm, "concurrency": limits.concurrency}
        return {
            "lane": self.lane.name,
            "seq": self._seq,
            "told": {name: limit for name, limit in by_name.items() if limit is not None},
            "in_flight": self.in_flight,
            "waiting": len(self.waiting),
            "soon": int(self._pace * 2 * QUIET) + 2,
            "wants": self.waiting.wants(max(FEWEST_COSTS, 2 * self._granted), spare),
            "report": self._unconfirmed.as_json(),
        }

    def _expect(self, elapsed: float) -> dict[int, Spare]:
        """Return what will come before the next poll if calls keep coming as they do: the mean and 1.5 deviations."""
        calls = sum(arrivals.calls for arrivals in self._arrivals.values())
        self._coming += 0.3 * (calls / elapsed - self._coming)
        mean = self._coming * QUIET
        expected = mean + 1.5 * math.sqrt(mean)
        return {
            run: Spare(int(expected * arrivals.calls / calls), arrivals.tokens // arrivals.calls)
            for run, arrivals in self._arrivals.items()
        }

    def heed(self, reply: Mapping[str, Any], now: float) -> None:
        """Take the script's `reply` to `ask`: what it grants may be used from `now` on for QUANTUM seconds."""
        self._unconfirmed = None
        self._slots, self._bucket = int(reply["slots"]), int(reply["bucket"])
        self._credits = {int(run): _Credit(int(calls), int(tokens)) for run, calls, tokens in reply["grants"] or ()}
        self._granted = sum(credit.calls for credit in self._credits.values())
        self._own = (int(reply["own"]["requests"]), int(reply["own"]["tokens"]))
        self._wait, self._held_up = float(reply["wait"]), reply.get("held_up")
        self._usable_until = min(now + QUANTUM, self._asked + 2 * QUANTUM)
        self.view = read_view(self.lane.name, reply["view"])

    def lose(self) -> None:
        """Note that the poll failed: nothing may be begun until one succeeds."""
        self._slots, self._held_up = 0, "rate"

    def next_poll(self) -> float | None:
        """Return the seconds until the next poll is due; None: not until something happens."""
        if self.waiting:
            return self._wait
        if not self._report.is_empty or self._has_credit():
            return QUIET
        return HEARTBEAT if self.in_flight else None

    @property
    def is_held_up(self) -> bool:
        """Say whether calls wait, and another poll before `next_poll` would bring them nothing."""
        return self._held_up is not None and len(self.waiting) > 0
