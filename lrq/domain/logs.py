"""Log lines: a sentence for people, or JSON for machines; both name the run and item that a thread works on."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from lrq.domain.printable import printable, printable_json

_WORK: ContextVar[dict[str, Any]] = ContextVar("work", default={})  # noqa: B039 - it is replaced, never changed
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "data"}
_JSON = str | int | float | bool | None
# Celery's own extras: the same is in the sentence.
_OF_CELERY = frozenset(
    {"hostname", "id", "name", "return_value", "runtime", "args", "kwargs", "internal", "description"}
)


@contextmanager
def working_on(**fields: Any) -> Iterator[None]:
    """Name what this thread, and the coroutines that it starts, work on: `run`, `item`, `step`."""
    token = _WORK.set(fields)
    try:
        yield
    finally:
        _WORK.reset(token)


def current_work() -> dict[str, Any]:
    """Return what this thread or coroutine works on."""
    return _WORK.get()


class LogFormatter(logging.Formatter):
    """Formats records as sentences, or as one JSON object per line.

    A sentence ends with the work in brackets. Nothing in a line can drive a terminal: reasons quote servers and data.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self.converter = time.gmtime
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, or of a sentence with an exception the lines of its traceback."""
        if not self._as_json:
            return printable(super().format(record))
        extra = {name: value for name, value in vars(record).items() if name not in _STANDARD | _OF_CELERY}
        line = {
            **{name: value if isinstance(value, _JSON) else str(value) for name, value in extra.items()},
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_WORK.get(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return printable_json(line)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return a sentence without traceback."""
        work = ", ".join(f"{name} {value}" for name, value in _WORK.get().items())
        return super().formatMessage(record) + (f" [{work}]" if work else "")


def format_logs(logger: logging.Logger, *, as_json: bool) -> None:
    """Let all handlers that `logger` has now write such lines, `as_json` or as sentences."""
    for handler in logger.handlers:
        handler.setFormatter(LogFormatter(as_json=as_json))
