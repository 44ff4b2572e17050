"""A run in the browser: a local server over the ledger, and the same pages as one file."""
