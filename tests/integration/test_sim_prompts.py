"""Every packaged judge prompt, filled and sent to judge-sim, gets a reply that our readers can read."""

from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from lrq.domain.errors import Unreadable
from lrq.domain.fences import fenced
from lrq.domain.marks import NOTHING_RELEVANT, read_extraction, read_score, read_statements, read_support, read_supports
from lrq.recipes.longreward import LONGREWARD
from lrq.recipes.templates import fill, load_prompts
from lrq.sim.options import Options
from lrq.sim.server import serve

PROMPTS = load_prompts(LONGREWARD.texts)
PIECES = ("part", "passage", "statement")  # parts of prompts, no prompts
KINDS = [name for name in PROMPTS if name.split("/")[1] not in PIECES]
READERS: dict[str, Callable[[str], Any]] = {
    "helpfulness": read_score,
    "logicality": read_score,
    "statements": read_statements,
    "support": lambda reply: read_support(reply).mark,
    "support_batch": lambda reply: [found and found.mark for found in read_supports(reply, 2)],
    "extraction": read_extraction,
    "completeness": read_score,
}
WORLDS = {
    "en": {
        "question": "What is the colour of Anna and the size of Ben ?",
        "document": "The colour of Anna is red . The colour of Ben is blue . The size of Ben is small .",
        "true": "The colour of Anna is red .",
        "false": "The size of Ben is blue .",
        "other": "The size of Ben is small .",
    },
    "zh": {
        "question": "安娜的颜色和本的大小分别是什么？",
        "document": "安娜的颜色是红色，本的颜色是蓝色。本的大小是小号。",
        "true": "安娜的颜色是红色。",
        "false": "本的大小是蓝色。",
        "other": "本的大小是小号。",
    },
}


def filled(name: str) -> str:
    """The template as the recipe fills it, with one true and one false statement as the answer."""
    language = name.split("/", maxsplit=1)[0]
    world = WORLDS[language]
    extracted = f"- {world['true']}\n- {world['other']}"
    values = {
        "question": fenced(world["question"]),
        "answer": fenced(f"{world['true']} {world['false']}"),
        "part": fenced(world["document"]),
        "statement": fenced(world["true"]),
        "passages": _pieces(language, "passage", world["document"], "It rained. 下雨了。"),
        "statements": _pieces(language, "statement", world["true"], world["false"]),
        "points": fenced(f"{_part(language, 1, extracted)}\n{_part(language, 2, NOTHING_RELEVANT)}"),
    }
    return fill(PROMPTS[name], {key: text for key, text in values.items() if "{{" + key + "}}" in PROMPTS[name]})


def _pieces(language: str, name: str, *texts: str) -> str:
    template = PROMPTS[f"{language}/{name}"]
    return "\n\n".join(fill(template, {"number": str(n), "text": fenced(text)}) for n, text in enumerate(texts, 1))


def _part(language: str, number: int, text: str) -> str:
    places = {"number": str(number), "count": "2", "start": str(50 * number - 50), "end": str(50 * number)}
    return fill(PROMPTS[f"{language}/part"], places | {"text": text})


async def replies(name: str, **options: Any) -> Any:
    body = {"model": "judge", "messages": [{"role": "user", "content": filled(name)}], "max_tokens": 2048}
    async with (
        serve(Options(**options)) as running,
        aiohttp.ClientSession() as session,
        session.post(running.url + "/chat/completions", json=body) as response,
    ):
        return await response.json()


EXPECTED: dict[str, Callable[[Any, dict[str, str]], bool]] = {
    "helpfulness": lambda score, _: score == 10,  # it names both parts and says something on each
    "logicality": lambda score, _: score == 10,
    "statements": lambda found, world: found == (world["true"], world["false"]),
    "support": lambda mark, _: mark == "Fully supported",
    "support_batch": lambda marks, _: marks == ["Fully supported", "No support"],
    "extraction": lambda points, _: len(points.splitlines()) == 2,
    "completeness": lambda score, _: score == 5,  # one of two points, beside a part without any
}


@pytest.mark.parametrize("name", KINDS)
async def test_a_packaged_prompt_gets_a_readable_and_right_reply(name: str) -> None:
    """A true and a false statement about a tiny document are judged as what they are."""
    language, kind = name.split("/")
    reply = (await replies(name))["choices"][0]
    assert reply["finish_reason"] == "stop"
    value = READERS[kind](reply["message"]["content"])
    assert EXPECTED[kind](value, WORLDS[language]), value


@pytest.mark.parametrize("name", KINDS)
async def test_a_seeded_unreadable_reply_is_unreadable_to_its_reader(name: str) -> None:
    """No reader takes it for a judgement."""
    for seed in range(6):
        reply = (await replies(name, faults={"unreadable": 1.0}, seed=seed))["choices"][0]["message"]["content"]
        with pytest.raises(Unreadable):
            READERS[name.split("/")[1]](reply)


def test_both_languages_are_packaged_with_every_kind() -> None:
    """Seven kinds in English and in Chinese, none unknown to this test."""
    assert sorted(KINDS) == sorted(f"{language}/{kind}" for language in WORLDS for kind in READERS)
