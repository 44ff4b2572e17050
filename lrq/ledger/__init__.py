"""Everything durable: the truth and the backlog."""

from lrq.ledger.engine import Ledger, LedgerUnavailable, open_ledger
from lrq.ledger.transaction import Transaction
from lrq.ledger.writer import Writer

__all__ = ["Ledger", "LedgerUnavailable", "Transaction", "Writer", "open_ledger"]
