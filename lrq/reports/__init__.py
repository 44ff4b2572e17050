"""What is known of runs and items, as plain data: the commands print it, the viewer draws it."""
