"""One `judge-usage` event a second: what this process bought, for whoever watches; nobody waits for it."""

import logging
import threading
from collections import Counter
from typing import Any

from lrq.domain.records import Call, Purpose, Reply

log = logging.getLogger(__name__)

_EVERY = 1.0  # seconds; an event costs about 0.2 ms


class UsageReports:
    """Counts bought replies and tells their sums from a thread of its own."""

    def __init__(self, app: Any, hostname: str) -> None:
        self._app = app
        self._hostname = hostname
        self._lock = threading.Lock()
        self._bought: Counter[tuple[int, str, str, str]] = Counter()
        self._ended = threading.Event()
        threading.Thread(target=self._work, name="usage", daemon=True).start()

    def count(self, call: Call, purpose: Purpose, _reply: Reply) -> None:
        """For `Caller.settled`."""
        with self._lock:
            self._bought[purpose.run, call.role, call.endpoint, purpose.dimension] += 1

    def close(self) -> None:
        self._ended.set()

    def _work(self) -> None:
        while not self._ended.wait(_EVERY):
            with self._lock:
                bought, self._bought = self._bought, Counter()
            if bought:
                self._send(bought)

    def _send(self, bought: Counter[tuple[int, str, str, str]]) -> None:
        names = ("run", "role", "endpoint", "dimension")
        usage = [{**dict(zip(names, source, strict=True)), "calls": calls} for source, calls in bought.items()]
        try:
            with self._app.events.default_dispatcher(hostname=self._hostname) as dispatcher:
                dispatcher.send("judge-usage", usage=usage)
        except Exception:  # whatever the transport raises: the sums stand in the ledger, only this second is not seen
            log.debug("The broker took no judge-usage event", exc_info=True)
