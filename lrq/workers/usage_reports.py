"""One `judge-usage` event a second: what this process bought, for those who watch; nobody waits for it."""

import logging
import threading
from collections import Counter, defaultdict
from typing import Any

from lrq.calls.observing import CallEvent

log = logging.getLogger(__name__)

_EVERY = 1.0  # seconds; an event costs about 0.2 ms

Source = tuple[int, str, str, str]  # run, role, endpoint, dimension


class UsageReports:
    """Sums up what calls brought, and sends the sums from a thread of its own."""

    def __init__(self, app: Any, hostname: str) -> None:
        self._app = app
        self._hostname = hostname
        self._lock = threading.Lock()
        self._sums: defaultdict[Source, Counter[str]] = defaultdict(Counter)
        self._ended = threading.Event()
        threading.Thread(target=self._work, name="usage", daemon=True).start()

    def observe(self, event: CallEvent) -> None:
        """Count one event of a call."""
        call, purpose = event.call, event.purpose
        with self._lock:
            add_event(self._sums[purpose.run, call.role, call.endpoint, purpose.dimension], event)

    def close(self) -> None:
        self._ended.set()

    def _work(self) -> None:
        while not self._ended.wait(_EVERY):
            with self._lock:
                sums, self._sums = self._sums, defaultdict(Counter)
            if sums:
                self._send(sums)

    def _send(self, sums: defaultdict[Source, Counter[str]]) -> None:
        names = ("run", "role", "endpoint", "dimension")
        usage = [{**dict(zip(names, source, strict=True)), **figures} for source, figures in sums.items()]
        try:
            with self._app.events.default_dispatcher(hostname=self._hostname) as dispatcher:
                dispatcher.send("judge-usage", usage=usage)
        except Exception:  # whatever the transport raises: the sums stand in the ledger, only this second is not seen
            log.debug("The broker took no judge-usage event", exc_info=True)


def add_event(figures: Counter[str], event: CallEvent) -> None:
    """Add what an event says to the sums of `lrq.monitor.live.FIGURES`."""
    if event.outcome != "bought":
        figures[event.outcome] += 1
        return
    figures["calls"] += 1
    figures["reasks"] += event.call.attempt > 0
    figures["prompt_tokens"] += event.usage.prompt_tokens
    figures["cached_tokens"] += event.usage.cached_tokens
    figures["completion_tokens"] += event.usage.completion_tokens
    figures["cost"] += event.cost_micros or 0
    figures["latency_ms"] += round(event.latency * 1000)
