"""`lrq limits`: what may be asked of an endpoint is changed while runs work, and kept with its reason."""

from pathlib import Path

import pytest
from inline import World

from lrq.ledger.changes import latest_changes, limits_by_lane

CONFIG = """
judge:
  endpoints:
    - {name: fast, url: "http://127.0.0.1:9/v1", model: small, rpm: 600}
    - {name: strong, url: "http://127.0.0.1:9/v1", model: large, concurrency: 8}
"""
FAST, STRONG = "judge.fast.small", "judge.strong.large"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "lrq.yaml"
    path.write_text(CONFIG)
    return path


def test_a_limit_is_changed_shown_and_reset(lrq: World, config: Path) -> None:
    """The change holds over the setting; each is kept with author and reason; reset returns to the settings."""
    settings = ("--config", config)
    fast = lrq("limits", "judge.fast", *settings, "--json").json()
    none = {"rpm": 600, "tpm": None, "concurrency": None}
    assert fast == {
        "endpoints": [{"name": FAST, "settings": none, "changed": {}, "in_force": none}],
        "changes": [],
    }
    words = ("--rpm", 120, "--concurrency", 3, "--reason", "it sheds load", "--who", "ada")
    changed = lrq("limits", "judge.fast", *words, *settings)
    assert f"the limits of {FAST} hold in all processes" in changed.err
    assert "120 (set: 600)" in changed.out
    assert "3 (set: –)" in changed.out
    assert f"ada: {FAST} rpm 120, concurrency 3 (it sheds load)" in changed.out
    assert STRONG not in changed.out
    with lrq.ledger() as ledger, ledger.read() as tx:
        assert limits_by_lane(tx) == {FAST: {"rpm": 120, "concurrency": 3}}
        (kept,) = latest_changes(tx)
    assert (kept.who, kept.what, kept.subject, kept.reason) == ("ada", "limits", FAST, "it sheds load")
    facts = lrq("limits", *settings, "--json").json()
    in_force = {each["name"]: each["in_force"] for each in facts["endpoints"]}
    assert in_force[FAST] == {"rpm": 120, "tpm": None, "concurrency": 3}
    assert in_force[STRONG] == {"rpm": None, "tpm": None, "concurrency": 8}
    reset = lrq("limits", FAST, "--reset", "--reason", "it is well", *settings, "--json").json()
    assert reset["endpoints"][0]["in_force"] == none
    assert [change["reason"] for change in reset["changes"]] == ["it is well", "it sheds load"]
    with lrq.ledger() as ledger, ledger.read() as tx:
        assert limits_by_lane(tx) == {FAST: {}}


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("fast", "--rpm", 5, "--reason", "x"), f"no endpoint is called 'fast': give one of {FAST}, {STRONG}"),
        (("judge", "--rpm", 5, "--reason", "x"), f"several endpoints are called 'judge': give one of {FAST}, {STRONG}"),
        (("judge.fast", "--rpm", 5), "say why: the reason is kept"),
        (("judge.fast", "--rpm", 0, "--reason", "x"), "--rpm"),
        (("judge.fast", "--rpm", 2**31, "--reason", "x"), "at most 2,147,483,647"),
        (("judge.fast", "--rpm", 5, "--reset", "--reason", "x"), "leave the others out"),
        (("--rpm", 5, "--reason", "x"), "say whose limits"),
        (("judge.fast", "--reason", "x"), "name the new limits"),
    ],
)
def test_what_is_no_change_is_refused(lrq: World, config: Path, words: tuple[object, ...], reason: str) -> None:
    """One line says what to do, and nothing is kept."""
    assert reason in lrq("limits", *words, "--config", config, code=2).err
    with lrq.ledger() as ledger, ledger.read() as tx:
        assert limits_by_lane(tx) == {}
        assert latest_changes(tx) == []
