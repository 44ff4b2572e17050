"""From the policy's tokens through the ledger to the rows: what was drawn is what is trained."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from inline import World

pytest.importorskip("torch")
import transformers

from lrq.ledger import items as items_
from lrq.ledger import schema
from lrq.ledger.token_ids import pack_ids, unpack_ids
from lrq.policy.rendering import Rendering, ids_hash
from lrq.trainer.tiny import WORDS, make_policy

RESPONSES = 8
LIMIT = ("--set", f"sample.responses={RESPONSES}", "--set", "settings.min_scored=2")


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy(tmp_path_factory.mktemp("policy"), hidden=32)


@pytest.fixture
def sampled(lrq: World, policy: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("LRQ_POLICY", str(policy))
    return lrq


def lines(count: int) -> list[dict[str, Any]]:
    """Items of random words."""
    draw = random.Random(count)

    def words(number: int) -> str:
        return " ".join(draw.choices(WORDS, k=number))

    return [{"id": str(n), "context": words(60), "question": words(4)} for n in range(count)]


def drawn(world: World) -> dict[tuple[str, int], sa.Row[Any]]:
    """All responses as the ledger has them, by item and k."""
    query = sa.select(schema.items.c.key, schema.responses).join(schema.items)
    with world.ledger() as ledger, ledger.read() as tx:
        return {(row.key, row.k): row for row in tx.execute(query)}


def test_rows_have_the_tokens_that_the_policy_drew(sampled: World, policy: Path) -> None:
    """Ids of prompt and responses in pairs.jsonl are those sampled, and texts are decoded from them."""
    facts = sampled.run(sampled.write("tokens", lines(4)), *LIMIT, "--set", "sample.max_new_tokens=64")
    rows = [json.loads(line) for line in sampled("export", "tokens").out.splitlines()]
    assert facts["pairs"] == len(rows) > 1, facts["no_pair"]
    responses, tokenizer = drawn(sampled), transformers.AutoTokenizer.from_pretrained(policy)
    by_ids = {tuple(unpack_ids(row.ids)): row for row in responses.values()}
    assert len(by_ids) == len(responses)
    for row in responses.values():
        ids = unpack_ids(row.ids)
        assert len(ids) == row.tokens
        assert (ids[-1] == tokenizer.eos_token_id) == (row.finish == "stop")
        assert row.text == tokenizer.decode(ids, skip_special_tokens=True)
    for row in rows:
        chosen, rejected = (by_ids[tuple(row[f"{side}_ids"])] for side in ("chosen", "rejected"))
        assert chosen.key == rejected.key
        assert chosen.finish == "stop"
        rendering = Rendering(tokenizer=tokenizer, template={})
        assert row["prompt_ids"] == rendering.prompt_ids(row["prompt"])
        if "trl_differs" not in row:
            whole = tokenizer.apply_chat_template(row["prompt"] + row["chosen"], **row["chat_template_kwargs"])
            assert whole["input_ids"][: len(row["prompt_ids"] + row["chosen_ids"])] == (
                row["prompt_ids"] + row["chosen_ids"]
            )


def test_a_prompt_that_is_rendered_otherwise_today_gives_no_tokens(sampled: World, policy: Path) -> None:
    """The hash of what was sampled decides: the row falls back to its messages."""
    sampled.run(sampled.write("other", lines(3)), *LIMIT, "--set", "sample.max_new_tokens=64")
    with sampled.ledger() as ledger, ledger.write() as tx:
        for row in tx.execute(sa.select(schema.prompts)).all():
            body = json.loads(row.body)
            body["rendering"]["ids_hash"] = ids_hash([1, 2, 3])
            where = schema.prompts.c.item_id == row.item_id
            tx.execute(schema.prompts.update().where(where).values(body=json.dumps(body)))
    rows = [json.loads(line) for line in sampled("export", "other").out.splitlines()]
    assert rows
    assert all("prompt_ids" not in row and row["chosen"][0]["content"] for row in rows)


def test_cut_responses_are_counted_and_never_chosen(sampled: World) -> None:
    """Where all are cut there is no pair, status and report say how many; a setting allows it."""
    file = sampled.write("cut", lines(2))
    short = (*LIMIT, "--set", "sample.max_new_tokens=3", "--set", "sample.seed=1")
    facts = sampled.run(file, *short)
    cut = [row for row in drawn(sampled).values() if row.finish == "length"]
    assert facts["responses"]["cut"] == len(cut) > RESPONSES
    said = f"{len(cut)} of {2 * RESPONSES} responses were cut by max_new_tokens"
    assert said in sampled("status", "cut").out
    assert said in sampled("report", "cut").out
    assert "cut by max_new_tokens" in sampled("show", "cut:0").out
    ends = {(row.key, row.k): row.finish for row in drawn(sampled).values()}
    with sampled.ledger() as ledger, ledger.read() as tx:
        stored = tx.execute(sa.select(schema.rows, schema.items.c.key).join(schema.items)).all()
    chosen = [(row.key, items_.read_row(row).turns[0].chosen[1]) for row in stored]
    assert all(ends[response] == "stop" for response in chosen)
    allowed = sampled.run(file, *short, "--name", "allowed", "--set", "sample.choose_cut=true")
    assert allowed["pairs"] > facts["pairs"]
    rows = [json.loads(line) for line in sampled("export", "allowed").out.splitlines()]
    assert any(row.get("chosen_finish") == "length" and row["trl_differs"].startswith("chosen") for row in rows)


def test_a_policy_that_cannot_be_sampled_is_refused_before_anything_is_paid(
    lrq: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A NaN among the weights: enqueue, run and doctor say so in one line, and no run is made."""
    folder = make_policy(tmp_path / "nan", hidden=32)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    model.lm_head.weight.data[5] = float("nan")
    model.save_pretrained(folder)
    monkeypatch.setenv("LRQ_POLICY", str(folder))
    file = lrq.write("refused", lines(1))
    for command in (("enqueue", file), ("run", file, "--no-train")):
        assert "logits are not finite" in lrq(*command, code=2).err
    assert "logits are not finite" in lrq("doctor", code=1).out
    assert lrq("status", "--json").json()["runs"] == []


def test_settings_of_the_chat_template_are_frozen_with_the_run(sampled: World) -> None:
    """policy.template is in the prompt's rendering and in the rows; another one is another run."""
    template = ("--set", "policy.template={extra: true}")
    file = sampled.write("template", lines(2))
    sampled.run(file, *LIMIT, *template, "--set", "sample.max_new_tokens=64")
    rows = [json.loads(line) for line in sampled("export", "template").out.splitlines()]
    assert rows
    assert all(row["chat_template_kwargs"]["extra"] is True for row in rows)
    assert "policy.template" in sampled("enqueue", file, "--no-train", code=2).err


def test_ids_are_packed_small_and_come_back(lrq: World) -> None:
    """Thousand ids take less than half of their 4,000 bytes; none is none."""
    draw = random.Random(1)
    ids = [draw.choice((draw.randrange(150_000), draw.randrange(2_000))) for _ in range(1000)]
    packed = pack_ids(ids)
    assert packed is not None
    assert len(packed) < 2_400
    assert unpack_ids(packed) == ids
    assert pack_ids([]) is None
    assert unpack_ids(None) == []
    assert items_.CUT == "length"


def test_a_policy_is_probed_once(sampled: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdict is kept for the same files and versions; other files are asked anew."""
    file = sampled.write("probed", lines(1))
    sampled("enqueue", file, "--no-train")
    asked: list[Any] = []

    def ask(command: list[str], **_: Any) -> Any:
        asked.append(command)
        raise OSError

    monkeypatch.setattr("lrq.workers.probing.subprocess.run", ask)
    sampled("enqueue", file, "--no-train")
    assert asked == []
    monkeypatch.setattr("lrq.workers.probing.fingerprint", lambda _: "another")
    with pytest.raises((OSError, AssertionError)):
        sampled("enqueue", file, "--no-train")
    assert len(asked) == 1
