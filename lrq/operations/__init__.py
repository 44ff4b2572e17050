"""What the commands do, for callers in Python: put a file into the ledger, work on it, write what it made."""
