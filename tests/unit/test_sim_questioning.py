"""The simulated author of questions, asked as LongPO asks."""

import pytest

from lrq.domain.records import Item
from lrq.recipes.longpo import LONGPO
from lrq.recipes.longpo_filters import read_questions
from lrq.recipes.ports import Case
from lrq.sim.questioning import asks_for_questions, write_questions

SENTENCES = {
    "en": [
        "The colour of Anna is red.",
        "The size of Ben is small.",
        "The home of Cleo is Oslo.",
        "The age of Dan is 9.",
    ],
    "zh": ["安娜的颜色是红色。", "本的大小是小号。", "克莱奥的家是奥斯陆。", "丹的年龄是九岁。"],
}


@pytest.mark.parametrize("language", SENTENCES)
def test_as_many_questions_are_written_as_are_asked_for(language: str) -> None:
    """The prompt of either language is recognised, and its reply is a list that our reader takes."""
    settings = {**LONGPO.settings, "chunk_tokens": 200, "least_chunk_tokens": 1, "questions": 2}
    item = Item(id="1", context=" ".join(SENTENCES[language]))
    (prompt,) = LONGPO.prompts(Case(item=item, texts=LONGPO.prompt_texts(), settings=settings))
    text = prompt.render(item.context)[0]["content"]
    assert asks_for_questions(text) == 2
    questions = read_questions(write_questions(text, 2), 2)
    assert len(set(questions)) == 2
    assert all(("Anna" in question or "安娜" in question) == (place == 0) for place, question in enumerate(questions))


def test_other_prompts_ask_for_no_questions() -> None:
    """A question about a document is a policy's to answer."""
    assert asks_for_questions("~~~~\nThe colour is red.\n~~~~\n\nWhat is 1: a colour?") == 0
