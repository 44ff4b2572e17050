"""Task events go out together once a second: published one by one they were a tenth of the CPU of a task."""

from typing import Any

from celery import bootsteps

EVERY = 1.0  # seconds; Flower's pages are no fresher


class EventsByTheSecond(bootsteps.StartStopStep):  # type: ignore[misc]
    """Flushes the events of this worker's tasks on a timer."""

    requires = ("celery.worker.consumer.events:Events",)

    def __init__(self, consumer: Any, **_: object) -> None:
        self.timer: Any = None

    def start(self, consumer: Any) -> None:
        """After each connecting."""
        dispatcher = consumer.event_dispatcher
        if consumer.hub is None or dispatcher is None:
            return
        dispatcher.on_send_buffered = None
        self.timer = consumer.timer.call_repeatedly(EVERY, dispatcher.flush)

    def stop(self, consumer: Any) -> None:
        """Before the dispatcher is closed."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
            consumer.event_dispatcher.flush()
