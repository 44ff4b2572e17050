"""Calls of a preference model: the scorer's server, and others that have the score API of vLLM."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from lrq.calls.transport import Transport
from lrq.config import Endpoint, Settings
from lrq.domain.errors import UsageError
from lrq.domain.records import Call
from lrq.recipes.longreward import LONGREWARD
from lrq.run_config import load_run_config, snapshot_config

CALL = Call(role="judge", endpoint="default", model="rm", input=("Why?", "Because.", "No."))


async def served(scores: Sequence[Any]) -> tuple[TestServer, list[dict[str, Any]]]:
    """A server of the score API that answers with these, and what it was asked."""
    asked: list[dict[str, Any]] = []

    async def score(request: web.Request) -> web.Response:
        asked.append(await request.json())
        data = [{"index": n, "object": "score", "score": one} for n, one in enumerate(scores)]
        data.reverse()
        return web.json_response({"data": data, "usage": {"prompt_tokens": 9, "total_tokens": 9}})

    app = web.Application()
    app.router.add_post("/v1/score", score)
    server = TestServer(app)
    await server.start_server()
    return server, asked


async def post(url: str, call: Call = CALL, **settings: Any) -> Any:
    transport = Transport()
    try:
        return await transport.post(Endpoint(url=url, model="rm", api="score", **settings), call, "key")
    finally:
        await transport.close()


async def test_one_score_a_text_by_index() -> None:
    """Prompt and responses go out as vLLM names them; the request asks for logits."""
    server, asked = await served([1.5, -0.25])
    outcome = await post(str(server.make_url("/v1")))
    await server.close()
    assert asked == [{"model": "rm", "text_1": "Why?", "text_2": ["Because.", "No."], "use_activation": False}]
    assert (outcome.kind, outcome.vectors, outcome.usage.prompt_tokens) == ("ok", [[1.5], [-0.25]], 9)


@pytest.mark.parametrize(
    "scores", [[1.0], [1.0, None], [1.0, [0.0, 1.0]], [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]], ["high", "low"], []]
)
async def test_anything_but_a_score_for_each_is_no_reply(scores: Sequence[Any]) -> None:
    server, _ = await served(scores)
    outcome = await post(str(server.make_url("/v1")))
    await server.close()
    assert outcome.kind == "failed"
    assert "form of a reply" in outcome.reason


@pytest.fixture
async def scorer(tmp_path: Path) -> AsyncIterator[str]:
    """The scorer's server with a model that prefers what is longer."""
    pytest.importorskip("torch")
    from lrq.scorer.models import TooLong  # noqa: PLC0415 - loads torch
    from lrq.scorer.server import make_app  # noqa: PLC0415

    class Longer:
        kind = "stand-in"

        def score(self, prompt: str, responses: Sequence[str]) -> tuple[list[list[float]], int]:
            if len(prompt) > 100:
                raise TooLong("it has 101 tokens")
            return [[float(len(a) - len(b)) for b in responses] for a in responses], 7

    server = TestServer(make_app(Longer(), token="secret-of-this-test", names=("rm@1234", "rm")))
    await server.start_server()
    yield str(server.make_url("/v1"))
    await server.close()


async def test_the_scorer_gives_logits_to_who_has_its_token(scorer: str) -> None:
    """A matrix for a pairwise model; nothing without the token, nor for a page of another site."""
    outcome = await post(scorer, api_key="secret-of-this-test")
    assert (outcome.kind, outcome.vectors) == ("ok", [[0.0, 5.0], [-5.0, 0.0]])
    assert (await post(scorer, api_key="another")).kind == "account"
    assert (await post(scorer)).kind == "account"
    key = {"Authorization": "Bearer secret-of-this-test"}
    async with ClientSession(headers=key) as session:
        async with session.get(f"{scorer}/models") as reply:
            assert [one["id"] for one in (await reply.json())["data"]] == ["rm@1234", "rm"]
        async with session.post(f"{scorer}/score", headers={"Host": "evil.example"}, json={}) as reply:
            assert reply.status == 403
        async with session.post(f"{scorer}/score", headers={"Origin": "http://evil.example"}, json={}) as reply:
            assert reply.status == 403
        for body in (b"{", b"[]", b'{"text_1": "a"}', b'{"text_1": "a", "text_2": [1]}'):
            async with session.post(f"{scorer}/score", data=body) as reply:
                assert reply.status == 400


async def test_what_the_scorer_cannot_take_is_refused(scorer: str) -> None:
    """A text too long ends that call; whether another model is the call's fault or all calls' is told by the others."""
    long = Call(role="judge", endpoint="default", model="rm", input=("?" * 101, "a", "b"))
    outcome = await post(scorer, long, api_key="secret-of-this-test")
    assert (outcome.kind, outcome.reason) == ("refused", "HTTP 400: too long: it has 101 tokens")
    moved = Call(role="judge", endpoint="default", model="rm@99", input=("Why?", "a", "b"))
    outcome = await post(scorer, moved, api_key="secret-of-this-test")
    assert (outcome.kind, "serves rm@1234" in outcome.reason) == ("denied", True)


def settings(**judge: Any) -> Settings:
    return Settings.model_validate({"recipe": judge.pop("recipe", "sppo"), "judge": judge})


def test_a_preference_model_is_frozen_as_one() -> None:
    named = settings(url="http://gpu/v1/score", model="rm", api="score")
    assert named.endpoints("judge")[0].url == "http://gpu/v1"
    config = snapshot_config(named, train=False)
    assert config["judge"]["models"][0]["api"] == "score"
    frozen = load_run_config("sppo", config)
    assert frozen.is_compared("pairwise")
    assert frozen.judge_of("win_rate", "x").api == "score"
    plain = snapshot_config(settings(url="http://gpu/v1", model="m"), train=False)
    assert "api" not in plain["judge"]["models"][0]
    assert not load_run_config("sppo", plain).is_compared("pairwise")


@pytest.mark.parametrize(
    ("judge", "words"),
    [
        ({"recipe": "longreward", "url": "http://gpu/v1", "api": "score"}, "asks its judge for text"),
        (
            {
                "endpoints": [
                    {"name": "a", "url": "http://a/v1", "model": "m", "api": "score"},
                    {"name": "b", "url": "http://b/v1", "model": "m"},
                ]
            },
            "either all are preference models, or none",
        ),
        ({"path": "/nowhere/PairRM"}, "there is no folder /nowhere/PairRM"),
    ],
)
def test_a_judge_that_cannot_serve_the_recipe_is_refused_before_anything_is_paid(
    judge: dict[str, Any], words: str
) -> None:
    assert LONGREWARD.steps
    with pytest.raises(UsageError, match=words):
        snapshot_config(settings(**judge), train=False)


@pytest.mark.parametrize(
    ("own", "words"),
    [({"win_rates": "mine"}, "paper or released"), ({"opponents": "none"}, "all or pair")],
)
def test_a_word_that_a_setting_does_not_know_is_refused(own: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        snapshot_config(Settings.model_validate({"recipe": "sppo", "settings": own}), train=False)


def test_the_scorer_has_one_place_and_one_token(tmp_path: Path) -> None:
    """They follow from LRQ_HOME; the token is made once, for its owner alone."""

    def made(home: Path) -> Settings:
        return Settings.model_validate({"home": home, "judge": {"path": "x/RM"}})

    one, other = made(tmp_path / "a").scorer, made(tmp_path / "b").scorer
    assert one
    assert other
    assert one is made(tmp_path / "a").endpoints("judge")[0]
    assert one.url.startswith("http://127.0.0.1:2")
    assert one.url != other.url
    assert (one.model, one.api, one.price and one.price.input) == ("RM", "score", 0)
    token = one.secret()
    assert len(token) > 40
    assert token == one.secret() == (tmp_path / "a" / "scorer.token").read_text()
    assert token != other.secret()
    assert (tmp_path / "a" / "scorer.token").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["scorer.token"]
    with pytest.raises(ValueError, match="two judges"):
        Settings.model_validate({"judge": {"path": "x", "url": "http://y/v1"}})
