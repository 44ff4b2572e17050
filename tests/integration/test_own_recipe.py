"""A recipe of the user's own gets all that ours get, and no stage knows it."""

import json
from pathlib import Path

import pytest
from inline import Judge, World

from lrq.ledger.schema import items, runs

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "recipes"
WIT = EXAMPLES / "wit.py"
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


def test_a_recipe_that_has_changed_is_for_a_fork(lrq: World) -> None:
    """What was frozen by one code is not judged by another: the run says so and waits, the fork goes on."""
    file = lrq.folder / "mine.py"
    file.write_text(WIT.read_text())
    talks = lrq.write("talks", TALKS)
    lrq.run(talks, "--recipe", f"{file}:WIT")
    file.write_text(WIT.read_text() + "\n# another version\n")
    refused = lrq("enqueue", talks, "--no-train", "--recipe", f"{file}:WIT", code=2)
    assert "run 'talks' is frozen with other settings: code" in refused.err
    lrq("resume", "talks", "--failed", "--detach")
    with lrq.ledger() as ledger, ledger.write() as tx:
        tx.execute(items.update().where(items.c.key == "talk-1").values(state="unjudged"))
        tx.execute(runs.update().values(state="active", open_items=1))
    lrq.work("talks")
    state = lrq.status("talks")
    assert state["state"] == "paused"
    assert f"recipe {file}:WIT has changed since the run was frozen" in state["reason"]
    file.write_text(WIT.read_text())
    lrq("resume", "talks", "--detach")
    lrq.work("talks")
    assert lrq.status("talks")["state"] == "done"
    file.write_text(WIT.read_text() + "\n# another version\n")
    facts = lrq("fork", "talks", "--name", "anew", "--detach", "--json").json()
    assert (facts["changed"], facts["steps"]) == (["the recipe's code"], ["wit"])
    lrq.work("anew")
    after = lrq.status("anew")
    assert (after["state"], after["calls"]["calls"], after["calls"]["reused"]) == ("done", 0, 12)


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


def test_a_reward_of_ones_own_prefers_the_shorter_of_two_alike(lrq: World) -> None:
    """The judge-sim gives every answer the mark that the prompt shows; the price of a word decides."""
    talk = {"id": "talk", "context": DOCUMENT, "question": "When did it freeze?"}
    talk["responses"] = ["On Friday.", "It froze, as is well known to everybody who was there, on Friday."]  # type: ignore[assignment]
    recipe = f"{EXAMPLES / 'terse.py'}:TERSE"
    lrq.run(lrq.write("talks", [talk]), "--recipe", recipe, "--set", "settings.price_of_a_word=0.5")
    scores = [json.loads(line) for line in lrq("export", "talks", "--format", "scores").out.splitlines()]
    rewards = [line["reward"] for line in scores]
    marks = [line["scores"]["correct"] for line in scores]
    assert rewards == [marks[0] - 2 * 0.5, marks[1] - 13 * 0.5]
    (row,) = map(json.loads, lrq("export", "talks").out.splitlines())
    assert row["chosen"][0]["content"] == (talk["responses"][0] if rewards[0] > rewards[1] else talk["responses"][1])


def test_a_recipe_of_several_stages_goes_the_whole_way(
    lrq: World, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Documents alone: the teacher's question is asked of the policy, whose answers are judged by passages."""
    for role in ("POLICY", "TEACHER"):
        monkeypatch.setenv(f"LRQ_{role}_URL", judge.url)
        monkeypatch.setenv(f"LRQ_{role}_MODEL", role.lower())
    recipe = f"{EXAMPLES / 'ask_back.py'}:ASK_BACK"
    run = lrq.run(lrq.write("docs", [{"id": "doc", "context": DOCUMENT * 3}]), "--recipe", recipe)
    assert (run["state"], run["scores"]["borne_out"]["value"]) == ("done", 4)
    shown = lrq("show", "doc", "--json").json()
    roles = {("teacher", "question"), ("policy", "answer"), ("judge", "borne_out")}
    assert {(call["role"], call["kind"]) for call in shown["calls"]} == roles
