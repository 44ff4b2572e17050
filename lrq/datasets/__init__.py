"""Files in and out: what a file is by its first bytes, lines one by one, Parquet."""
