"""A worker process that cannot open what its tasks need."""

import logging

import pytest
from celery.exceptions import WorkerShutdown

from lrq.domain.errors import LrqError
from lrq.queue.celery import app
from lrq.workers import context, loop


@pytest.mark.parametrize(
    ("error", "said", "told"),
    [
        (LrqError("the ledger is on a network file system"), "the ledger is on a network file system", True),
        (ImportError("libpq.so: cannot open"), "ImportError: libpq.so: cannot open", False),
    ],
)
def test_a_worker_that_cannot_open_its_context_ends_and_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, said: str, told: bool
) -> None:
    """With code 1, before it takes a message; what the user can mend in one line, anything else with its trace."""

    async def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(context, "open_context", fails)
    monkeypatch.setattr(context, "settings_in_use", lambda: None)
    assert context.Opened in app.steps["worker"]
    try:
        with caplog.at_level(logging.CRITICAL), pytest.raises(WorkerShutdown) as ended:
            context.Opened(None).start(None)
    finally:
        loop.close()
    assert ended.value.code == 1
    assert [(record.getMessage(), not record.exc_info) for record in caplog.records] == [(said, told)]
