"""A judge's score less a price for every word: rewards of one's own. --recipe examples/recipes/terse.py:TERSE."""

from dataclasses import replace

from lrq.recipes import Recipe, simple
from lrq.recipes.recipe import DEFAULT_SETTINGS, mean_rewards

TEXT = """Does the answer tell what was asked, and nothing false, from 0 to 10?

[Document]
{{context}}

[Question]
{{question}}

[Answer]
{{answer}}

Say in a line why, and close with [[n]]."""


def rewards(case):
    """Subtract what the words of a response cost; one without a score keeps having none."""
    words = {(response.prompt, response.k): len(response.text.split()) for response in case.responses}
    price = case.settings["price_of_a_word"]
    return [
        reward if reward.value is None else replace(reward, value=reward.value - price * words[reward.prompt, reward.k])
        for reward in mean_rewards(case)
    ]


TERSE = Recipe(
    name="terse",
    needs=("context", "question"),
    settings={**DEFAULT_SETTINGS, "price_of_a_word": 0.05},
    described={"price_of_a_word": "Points of the reward that a word costs"},
    texts={"en/correct": TEXT},
    steps=(simple("correct"),),
    rewards=rewards,
)
