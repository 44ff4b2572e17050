"""Whether spans and metrics go to a collector: where the user names one, and nowhere else."""

import os
from typing import TYPE_CHECKING

from lrq.domain.errors import LrqError
from lrq.ledger import Ledger

if TYPE_CHECKING:
    from lrq.workers.telemetry import Telemetry


def open_collector(ledger: Ledger, service: str) -> "Telemetry | None":
    """Return what exports spans and metrics, or None where no collector is named. Raises LrqError without the extra."""
    if not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return None
    try:
        from lrq.workers.telemetry import open_telemetry  # noqa: PLC0415 - an extra
    except ImportError:
        problem = "OTEL_EXPORTER_OTLP_ENDPOINT is set and OpenTelemetry is not installed: pip install 'lrq[otel]'"
        raise LrqError(problem) from None
    return open_telemetry(ledger.id, service)
