"""A recipe of the user's own gets all that ours get, and no stage knows it."""

from pathlib import Path

import pytest
from inline import Judge, World

ROOT = Path(__file__).parents[2]
WIT = ROOT / "examples" / "recipes" / "wit.py"
TALKS = [
    {
        "id": f"talk-{n}",
        "question": f"What is {n} + {n}?",
        "responses": [f"{2 * n}", "Nobody knows.", f"It is {2 * n}."],
    }
    for n in range(4)
]


def test_the_smallest_recipe_goes_the_whole_way(lrq: World) -> None:
    """Enqueue, estimate, judge, show, and rows that training reads."""
    recipe = f"{WIT}:WIT"
    file = lrq.write("talks", TALKS)
    facts = lrq("estimate", file, "--json", "--recipe", recipe).json()
    assert (facts["calls"], list(facts["dimensions"])) == (12, ["wit"])
    run = lrq.run(file, "--recipe", recipe)
    assert run["state"] == "done"
    assert run["scores"]["wit"]["value"] == 12
    shown = lrq("show", "talk-1", "--json").json()
    assert [score["dimension"] for response in shown["responses"] for score in response["scores"]] == ["wit"] * 3
    rows = lrq("export", "talks").out.splitlines()
    assert len(rows) == sum(len(lrq("show", talk["id"], "--json").json()["rows"]) for talk in TALKS) > 0
    assert lrq("estimate", file, "--json", "--recipe", recipe).json()["responses"] == 12


DOCUMENT = "The harbour froze on Friday. Pell left on Sunday."
STAGED = r'''
from lrq.domain.records import CONTEXT, Dimension, NoRow, Prompt, Score
from lrq.recipes import Recipe, Step

def prompts(case):
    """A teacher writes a question, then the policy answers it."""
    if not case.prompts:
        text = f"~~~~\n{CONTEXT}\n~~~~\n\nWhat does it say of the harbour?"
        return [Prompt(name="ask", by="teacher", samples=1, messages=({"role": "user", "content": text},))]
    if case.named("answer"):
        return []
    return [Prompt(name="answer", samples=2, messages=({"role": "user", "content": case.answers(0)[0].text},))]

async def length(judge):
    return [Score(dimension="length", k=r.k, prompt=r.prompt, value=len(r.text)) for r in judge.case.answers(1)]

STAGED = Recipe(name="staged", needs=("context",), prompts=prompts,
                steps=(Step(name="length", procedure=length, dimensions=(Dimension(name="length", high=1e6),)),),
                rows=lambda case, rewards: [NoRow(reason=f"{len(case.prompts)} prompts")])
'''


def test_prompts_are_made_from_the_answers_to_earlier_ones(
    lrq: World, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is stored with its answers before the next is made; a teacher's are paid calls of that role."""
    for role in ("POLICY", "TEACHER"):
        monkeypatch.setenv(f"LRQ_{role}_URL", judge.url)
        monkeypatch.setenv(f"LRQ_{role}_MODEL", role.lower())
    recipe = lrq.folder / "staged.py"
    recipe.write_text(STAGED)
    lrq.run(lrq.write("docs", [{"id": "doc", "context": DOCUMENT}]), "--recipe", f"{recipe}:STAGED")
    shown = lrq("show", "doc", "--json").json()
    assert (shown["state"], shown["reason"]) == ("done", "2 prompts")
    assert [(response["prompt"], response["k"]) for response in shown["responses"]] == [(0, 0), (1, 0), (1, 1)]
    assert {(call["role"], call["kind"]) for call in shown["calls"]} == {("teacher", "ask"), ("policy", "answer")}
