"""lrq: long documents in; preference pairs and a better long-context model out."""
