"""The smallest recipe: one dimension, one prompt text. Run it with --recipe examples/recipes/wit.py:WIT."""

from lrq.recipes import Recipe, simple

TEXT = """How witty is the answer, from 0 (not at all) to 10?

[Question]
{{question}}

[Answer]
{{answer}}

Say in a line why, and close with [[n]]."""
WIT = Recipe(name="wit", steps=(simple("wit"),), texts={"en/wit": TEXT})
