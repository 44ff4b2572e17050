"""Estimates against bills: what was foreseen, and what a run's calls then took."""

import time
from typing import Any

import pytest
from inline import Judge, World
from journals import journals, questions

PRICE = "1,4"
CACHED = "1,4,0.1"  # cached input at a tenth


def mixed(count: int) -> list[dict[str, Any]]:
    """Documents from 300 to 12,000 characters with two to ten responses, English and Chinese."""
    lines = []
    for n in range(count):
        long = 1000 + 1100 * (7 * n % 11)
        line = journals(2, 2 + 5 * n % 9, seed=f"mixed {n}", chars=(long, long // 3))[n // 2 % 2]
        lines.append({**line, "id": f"item-{n}"})
    return lines


def off(foreseen: dict[str, Any], billed: dict[str, Any]) -> dict[str, float]:
    """How far an estimate is from the bill, as shares of the bill."""
    tokens = billed["calls"]["prompt_tokens"] + billed["calls"]["completion_tokens"]
    pairs = {
        "calls": (foreseen["calls"], billed["calls"]["calls"]),
        "tokens": (foreseen["tokens"], tokens),
        "money": (foreseen["cost"], billed["money"]["spent"]),
    }
    found = {name: one / other - 1 for name, (one, other) in pairs.items()}
    print({name: f"{value:+.2%}" for name, value in found.items()})
    return found


# ----- with responses given


@pytest.mark.parametrize(
    ("price", "settings"),
    [
        pytest.param(PRICE, (), id="plain"),
        pytest.param(CACHED, (), id="cached input is cheaper"),
        pytest.param(CACHED, ("settings.batch_statements=true",), id="statements in batches"),
        pytest.param(PRICE, ("judge.votes=2",), id="two votes"),
        pytest.param(PRICE, ("judge.model=large", "settings.extraction_chunk_tokens=512"), id="other settings"),
    ],
)
def test_a_sample_foresees_the_bill(lrq: World, price: str, settings: tuple[str, ...]) -> None:
    """Five of twelve items looked at: calls, tokens and money of all within 15 %, calls by dimension roughly."""
    file = lrq.write("items", mixed(12))
    words = ["--price", price, *(word for one in settings for word in ("--set", one))]
    foreseen = lrq("estimate", file, "--sample", 5, "--json", *words).json()
    billed = lrq.run(file, *words)
    assert (foreseen["items"], foreseen["looked_at"]) == (12, 5)
    assert max(map(abs, off(foreseen, billed).values())) < 0.15
    for name, one in foreseen["dimensions"].items():
        took = sum(row["calls"] for row in billed["usage"] if row["dimension"] == name)
        assert one["calls"] == pytest.approx(took, rel=0.25)
    assert foreseen["uncertainty"] > 0


def test_looking_at_all_items_is_exact_to_the_token(lrq: World) -> None:
    """Nothing is scaled where nothing has to be: the very calls and tokens of the bill."""
    file = lrq.write("items", mixed(6))
    foreseen = lrq("estimate", file, "--json").json()
    billed = lrq.run(file)
    assert foreseen["uncertainty"] == 0
    for name in ("calls", "prompt_tokens", "completion_tokens"):
        assert foreseen[name] == billed["calls"][name]


def test_embeddings_are_counted(lrq: World, judge: Judge) -> None:
    """An embedding endpoint's requests stand under its role, with their tokens, as they are bought."""
    file = lrq.write("items", mixed(4))
    embedding = ("--set", f"embedding.url={judge.url}", "--set", "embedding.model=vectors")
    foreseen = lrq("estimate", file, "--json", *embedding).json()
    billed = lrq.run(file, *embedding)
    (told,) = [kind for kind in foreseen["kinds"] if kind["role"] == "embedding"]
    (paid,) = [row for row in billed["usage"] if row["role"] == "embedding"]
    assert told["calls"] == pytest.approx(paid["calls"], rel=0.15)
    assert told["prompt_tokens"] == pytest.approx(paid["prompt_tokens"], rel=0.15)


def test_responses_of_a_second_file_are_taken_into_account(lrq: World) -> None:
    """`--responses` counts as responses in the lines do."""
    lines = mixed(4)
    whole = lrq("estimate", lrq.write("whole", lines), "--json").json()
    sampled = [
        {"idx": f"{line['id']}-{k}", "answer": text} for line in lines for k, text in enumerate(line["responses"])
    ]
    bare = [{name: value for name, value in line.items() if name != "responses"} for line in lines]
    apart = lrq("estimate", lrq.write("bare", bare), "--responses", lrq.write("sampled", sampled), "--json").json()
    assert apart == whole


# ----- before anything is known


def test_an_unknown_price_is_unpriced_and_unknown_limits_are_no_hours(lrq: World) -> None:
    """Null in JSON, words in the text, never nought."""
    file = lrq.write("items", mixed(2))
    facts = lrq("estimate", file, "--json").json()
    assert (facts["cost"], facts["hours"], facts["unpriced_calls"]) == (None, None, facts["calls"])
    text = lrq("estimate", file).out
    assert "unpriced: --price IN,OUT per million tokens tells the money" in text
    assert "hours unknown: no limit is set" in text
    free = lrq("estimate", file, "--price", "0,0", "--json").json()
    assert (free["cost"], free["unpriced_calls"]) == (0, 0)


def test_hours_follow_from_the_tightest_limit(lrq: World) -> None:
    """Calls by requests a minute, tokens by tokens a minute, over all servers of a pool."""
    file = lrq.write("items", mixed(3))
    facts = lrq("estimate", file, "--json", "--set", "judge.rpm=60", "--set", "judge.tpm=1000000000").json()
    assert facts["hours"] == pytest.approx(facts["calls"] / 60 / 60)
    assert facts["limited_by"] == "requests of judge default"
    facts = lrq("estimate", file, "--json", "--set", "judge.rpm=60", "--set", "judge.tpm=1000").json()
    assert facts["hours"] == pytest.approx(facts["tokens"] / 1000 / 60)
    url = "http://127.0.0.1:1/v1"
    pool = [{"url": url, "model": "m", "server": name, "rpm": 30} for name in ("a", "b")]
    config = lrq.folder / "pool.yaml"
    config.write_text(f"judge: {{url: null, endpoints: {pool}}}".replace("'", '"'))
    facts = lrq("estimate", file, "--json", "--config", config).json()
    assert facts["hours"] == pytest.approx(facts["calls"] / 60 / 60)


def test_no_judge_and_no_ledger_are_needed(lrq: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is set up calls and tokens are known, and nothing is created."""
    file = lrq.write("items", mixed(4))
    whole = lrq("estimate", file, "--json").json()
    for name in ("LRQ_JUDGE_URL", "LRQ_JUDGE_MODEL"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("LRQ_HOME", str(lrq.folder / "nowhere"))
    facts = lrq("estimate", file, "--json").json()
    assert facts["calls"] == whole["calls"]
    assert 0.6 * whole["prompt_tokens"] < facts["prompt_tokens"] < whole["prompt_tokens"]  # Chinese is converted
    assert facts["cost"] is None
    assert not (lrq.folder / "nowhere").exists()


def test_items_without_responses_are_taken_to_have_as_many_as_are_sampled(lrq: World, judge: Judge) -> None:
    """Ten of them, as long as the reference answer or as said; a policy behind a server is paid for as well."""
    file = lrq.write("asked", questions(3))
    facts = lrq("estimate", file, "--json").json()
    assert facts["responses"] == 30
    assert facts["dimensions"]["helpfulness"]["calls"] == 30
    assert any("bring no responses" in note for note in facts["notes"])
    longer = lrq("estimate", file, "--json", "--response-tokens", 400).json()
    more = longer["dimensions"]["helpfulness"]["prompt_tokens"] - facts["dimensions"]["helpfulness"]["prompt_tokens"]
    assert more > 30 * 300
    assert longer["dimensions"]["faithfulness"]["calls"] > facts["dimensions"]["faithfulness"]["calls"]
    served = lrq("estimate", file, "--json", "--set", f"policy.url={judge.url}").json()
    (sample,) = [kind for kind in served["kinds"] if kind["role"] == "policy"]
    assert (sample["calls"], sample["kind"]) == (3, "sample")


def test_a_recipe_of_ones_own_is_foreseen_without_being_known(lrq: World) -> None:
    """Its procedures are run as they are; prompts of a kind nobody knows are counted and said to be guessed."""
    recipe = lrq.folder / "witty.py"
    recipe.write_text(WITTY)
    facts = lrq("estimate", lrq.write("items", mixed(3)), "--json", "--recipe", f"{recipe}:WITTY").json()
    assert list(facts["dimensions"]) == ["wit"]
    assert 0 < facts["calls"] <= facts["responses"], "equal texts are one question"
    assert facts["notes"] == ["replies to prompts of kind wit are guessed"]


WITTY = """
from lrq.recipes import Recipe, simple

WITTY = Recipe(name="witty", steps=(simple("wit"),), texts={"en/wit": "How witty is it? {{answer}} Close with [[n]]."})
"""


@pytest.mark.parametrize(
    ("lines", "code", "says"),
    [
        ([], 2, "is empty: it holds no line"),
        ([{"id": "1"}], 1, "no line of"),
    ],
)
def test_a_file_without_a_usable_line_is_one_line(
    lrq: World, lines: list[dict[str, Any]], code: int, says: str
) -> None:
    """It says what is wrong, or where the reasons are to be had."""
    said = lrq("estimate", lrq.write("items", lines), code=code)
    assert says in said.err
    assert said.err.count("\n") == 1


# ----- what was counted before


def test_what_an_endpoint_has_counted_replaces_what_is_typical(lrq: World, judge: Judge) -> None:
    """After a run of enough calls the estimate of the next file has its replies' length and its cache's share."""
    lrq.run(lrq.write("before", mixed(8)), "--price", CACHED)
    usage = [row for row in lrq.status("before")["usage"] if row["kind"] == "support"]
    facts = lrq("estimate", lrq.write("next", journals(3, 4, seed="next")), "--json", "--price", CACHED).json()
    (support,) = [kind for kind in facts["kinds"] if kind["kind"] == "support"]
    per_call = sum(row["completion_tokens"] for row in usage) / sum(row["calls"] for row in usage)
    share = sum(row["cached_tokens"] for row in usage) / sum(row["prompt_tokens"] for row in usage)
    assert support["completion_tokens"] == pytest.approx(support["calls"] * per_call, rel=0.01)
    assert support["cached_tokens"] == pytest.approx(support["prompt_tokens"] * share, rel=0.01)


# ----- a pilot


@pytest.mark.timeout(240)
def test_a_pilot_foresees_the_bill_and_wastes_nothing(lrq: World, judge: Judge) -> None:
    """Five items run in earnest, replies unlike those expected: the rest within 10 %, and no item is bought twice."""
    file = lrq.write("asked", questions(14))
    words = ("--price", CACHED, "--no-train", "--set", f"policy.url={judge.url}", "--set", "policy.model=p")
    before = judge.stats()["complete"]
    foreseen = lrq("estimate", file, "--pilot", 5, "--json", *words).json()
    pilot = foreseen["pilot"]
    assert (pilot["run"], pilot["items"]) == ("asked", 5)
    assert judge.stats()["complete"] - before == pilot["calls"]
    assert lrq.status("asked")["items"] == {"done": 5}
    lrq("enqueue", file, *words)
    lrq.work("asked")
    billed = lrq.status("asked")
    assert billed["items"] == {"done": 14}
    assert judge.stats()["duplicates"] == 0
    assert max(map(abs, off(foreseen, billed).values())) < 0.10
    again = lrq("estimate", file, "--pilot", 5, "--json", *words).json()
    assert again["pilot"] == pilot


@pytest.mark.torch
def test_a_pilot_trains_nothing(lrq: World) -> None:
    """The run is only begun: its trainings wait for all its lines, and `lrq run` with the same options goes on."""
    file = lrq.write("items", journals(4, 6))
    lrq("estimate", file, "--pilot", 2, "--json")
    status = lrq.status("items")
    assert (status["state"], status["items"], status["trainings"], status["queues"]) == ("active", {"done": 2}, [], {})
    lrq("enqueue", file)
    assert sum(lrq.status("items")["items"].values()) == 4


# ----- enqueue


def test_enqueue_says_what_the_added_items_will_take(lrq: World) -> None:
    """In words and as JSON, near the bill from a look at a few; a file that adds nothing has nothing to say."""
    lines = mixed(20)
    first = lrq("enqueue", lrq.write("items", lines[:4]), "--no-train", "--price", CACHED)
    assert "calls" in first.out
    assert "money" in first.out
    said = lrq("enqueue", lrq.write("items", lines), "--no-train", "--price", CACHED, "--json").json()
    assert (said["added"], said["estimate"]["items"]) == (16, 16)
    lrq.work("items")
    whole = lrq("estimate", lrq.write("items", lines), "--price", CACHED, "--json", "--sample", 20).json()
    assert said["estimate"]["calls"] == pytest.approx(whole["calls"] * 16 / 20, rel=0.3)
    again = lrq("enqueue", lrq.write("items", lines), "--no-train", "--price", CACHED, "--json").json()
    assert (again["added"], again["estimate"]) == (0, None)


def test_enqueue_takes_the_lines_in_whatever_becomes_of_the_estimate(lrq: World) -> None:
    """A recipe that fails on being foreseen costs no line; a short note says so."""
    recipe = lrq.folder / "witty.py"
    recipe.write_text(WITTY.replace("en/wit", "en/other"))  # the text that its step wants is missing
    said = lrq("enqueue", lrq.write("items", mixed(2)), "--no-train", "--recipe", f"{recipe}:WITTY")
    assert "2 items added" in said.out
    assert "no estimate: KeyError" in said.err


def test_an_estimate_is_quick(lrq: World) -> None:
    """However many lines: of two hundred long ones as many are looked at as three million characters hold."""
    line = journals(1, 2, chars=(100_000, 100_000))[0]
    lines = [{**line, "id": f"{n}", "context": line["context"] + str(n)} for n in range(60)]
    begun = time.monotonic()
    facts = lrq("estimate", lrq.write("items", lines), "--json").json()
    print(f"{time.monotonic() - begun:.1f} s")
    assert facts["looked_at"] == pytest.approx(3_000_000 / len(line["context"]), abs=1)
