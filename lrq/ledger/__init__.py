"""Everything durable: the truth and the backlog."""

from lrq.ledger.engine import Ledger, open_ledger
from lrq.ledger.writer import Writer

__all__ = ["Ledger", "Writer", "open_ledger"]
