"""`lrq doctor --call`: one small call to each endpoint, by the way that all calls go."""

import asyncio
import json
from pathlib import Path
from typing import Any

from aiohttp import web
from calling import answer, serving
from click.testing import CliRunner
from ledgers import opened

from lrq.cli import _lrq
from lrq.config import Settings
from lrq.ledger.learned import all_facts

KEY = "sk-of-the-doctor-0123"


class Judge:
    """Lists its context, refuses temperatures, and says which headers it was given."""

    def __init__(self) -> None:
        self.calls = 0
        self.seen: set[str] = set()

    async def handle(self, request: web.Request) -> web.Response:
        self.seen |= {f"{name}: {value}" for name, value in request.headers.items()}
        if request.method == "GET":
            return web.json_response({"data": [{"id": "m", "max_model_len": 8192}]})
        self.calls += 1
        if "temperature" in await request.json():
            words = f"'temperature' is not supported; you are {KEY}"
            return web.json_response({"error": {"message": words, "param": "temperature"}}, status=400)
        return answer()


def doctor(home: Path, url: str, *arguments: str) -> Any:
    env = {"LRQ_HOME": str(home), "LRQ_JUDGE_URL": url, "LRQ_JUDGE_MODEL": "m", "LRQ_JUDGE_API_KEY": KEY}
    settings = ("--set", "judge.price={input: 1, output: 2}", "--set", "judge.headers={X-Team: '${HOME}'}")
    return CliRunner(env=env).invoke(_lrq, ["doctor", *arguments, *settings])


def findings(done: Any) -> list[str]:
    return [f"{one['state']} {one['said']}" for one in json.loads(done.output) if one["what"] == "judge default"]


async def test_a_call_says_what_it_learned_and_cost(tmp_path: Path, monkeypatch: Any) -> None:
    """It is kept for all that come later, until it is forgotten; nothing shows the key; no ~/.netrc is read."""
    (tmp_path / ".netrc").write_text("default login me password of-netrc\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    judge = Judge()
    home = tmp_path / "home"
    async with serving(judge.handle) as url:
        free = await asyncio.to_thread(doctor, home, url, "--json")
        assert judge.calls == 0
        called = await asyncio.to_thread(doctor, home, url, "--call", "--json")
        assert judge.calls == 2
        again = await asyncio.to_thread(doctor, home, url, "--call", "--json")
        assert judge.calls == 3
        with opened(Settings(home=home)) as ledger, ledger.read() as tx:
            assert {(fact.topic, fact.name) for fact in all_facts(tx)} == {
                ("refused", "temperature"),
                ("context", ""),
            }
        forgotten = await asyncio.to_thread(doctor, home, url, "--forget", "--json")
    assert "ok learned: has a context of 8,192 tokens" in findings(free)
    assert any("10 + 5 tokens, 0.0000" in said for said in findings(called))
    assert any("takes no temperature" in said for said in findings(again))
    assert not any("temperature" in said for said in findings(forgotten))
    assert KEY not in free.output + called.output + again.output
    assert {f"Authorization: Bearer {KEY}", f"X-Team: {tmp_path}"} <= judge.seen
    assert not any(said.startswith("Authorization: Basic") for said in judge.seen)


def test_a_proxy_that_is_used_or_ignored_is_named_without_its_password(tmp_path: Path, monkeypatch: Any) -> None:
    """By the environment alone it is none; the connection that fails says so, too."""
    monkeypatch.setenv("https_proxy", "http://me:pw-of-proxy@127.0.0.1:9")
    ignored = doctor(tmp_path, "https://judge.invalid/v1", "--json")
    used = doctor(tmp_path, "https://judge.invalid/v1", "--json", "--set", "judge.proxy=environment")
    words = "the environment's proxy http://***@127.0.0.1:9 is not used for it: set `proxy: environment` to use it"
    assert f"note {words}" in findings(ignored)
    assert any("through http://***@127.0.0.1:9" in said for said in findings(used))
    assert not any("not used" in said for said in findings(used))
    assert "pw-of-proxy" not in ignored.output + used.output
