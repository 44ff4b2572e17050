"""Known hosts, as they are called: each is mimicked behind a proxy, which is asked for it by name."""

from typing import Any

import pytest
from aiohttp import web
from calling import ANSWER, serving

from lrq.calls.adapting import Adapting
from lrq.calls.presets import preset_of
from lrq.calls.transport import Transport
from lrq.calls.trial import try_call
from lrq.config import Endpoint

KEY = "sk-of-a-preset-0123"
BEARER = {"Authorization": f"Bearer {KEY}"}
AZURE = {"api-key": KEY}

# URL, model, path that it serves, headers that it wants, parameters that it does not take, in its own words.
HOSTS: list[tuple[str, str, str, dict[str, str], dict[str, str]]] = [
    ("http://x.openai.azure.com", "gpt-4o", "/openai/v1/chat/completions", AZURE, {}),
    (
        "http://x.openai.azure.com/openai/deployments/d",
        "gpt-4o",
        "/openai/deployments/d/chat/completions?api-version=2024-10-21",
        AZURE,
        {},
    ),
    ("http://api.openai.com", "gpt-4o", "/v1/chat/completions", BEARER, {}),
    ("http://api.openai.com", "gpt-5", "/v1/chat/completions", BEARER, {"max_tokens": "", "temperature": ""}),
    (
        "http://api.anthropic.com",
        "claude",
        "/v1/chat/completions",
        BEARER,
        {"top_p": "`temperature` and `top_p` cannot both be specified for this model. Please use only one.", "n": ""},
    ),
    ("http://generativelanguage.googleapis.com", "gemini", "/v1beta/openai/chat/completions", BEARER, {}),
    ("http://openrouter.ai", "a/b", "/api/v1/chat/completions", BEARER, {}),
    ("http://api.deepseek.com", "d", "/v1/chat/completions", BEARER, {}),
    ("http://api.mistral.ai", "m", "/v1/chat/completions", BEARER, {"seed": ""}),
    ("http://dashscope-intl.aliyuncs.com", "qwen", "/compatible-mode/v1/chat/completions", BEARER, {}),
    (
        "http://api.moonshot.ai",
        "kimi",
        "/v1/chat/completions",
        BEARER,
        {"top_p": "invalid top_p: only 0.95 is allowed for this model"},
    ),
    (
        "http://open.bigmodel.cn",
        "glm",
        "/api/paas/v4/chat/completions",
        BEARER,
        {"seed": "Unsupported parameter: seed"},
    ),
    ("http://api.groq.com", "llama", "/openai/v1/chat/completions", BEARER, {"n": ""}),
    ("http://api.together.xyz", "t", "/v1/chat/completions", BEARER, {}),
    ("http://api.fireworks.ai", "f", "/inference/v1/chat/completions", BEARER, {}),
    (
        "http://api.x.ai",
        "grok",
        "/v1/chat/completions",
        BEARER,
        {"seed": "Argument not supported on this model: seed"},
    ),
    ("http://api.perplexity.ai", "sonar", "/chat/completions", BEARER, {}),
    ("http://api.cohere.com", "command", "/compatibility/v1/chat/completions", BEARER, {}),
]


@pytest.mark.parametrize(("url", "model", "path", "headers", "untaken"), HOSTS)
@pytest.mark.parametrize("role", ["judge", "policy"])
async def test_a_known_host_takes_the_call_that_the_doctor_makes(
    url: str, model: str, path: str, headers: dict[str, str], untaken: dict[str, str], role: Any
) -> None:
    """By URL, model and key alone; what its words refuse is learned, what the table knows is never sent."""
    refusals: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        assert str(request.url.origin()) == url.partition("/openai")[0]
        if request.path_qs != path or any(request.headers.get(name) != value for name, value in headers.items()):
            return web.json_response({"error": {"message": f"no such path {request.path_qs}, or no key"}}, status=401)
        body = await request.json()
        name = next((name for name in untaken if name in body), "")
        if name:
            refusals.append(name)
            return web.json_response({"error": {"message": untaken[name]}}, status=400)
        return web.json_response(ANSWER)

    async with serving(handle) as proxy:
        endpoint = Endpoint(url=url, model=model, api_key=KEY, proxy=proxy.removesuffix("/v1"))
        transport = Transport()
        try:
            trial = await try_call(transport, endpoint, role, Adapting())
        finally:
            await transport.close()
    assert (trial.outcome.kind, trial.outcome.reason) == ("ok", "")
    assert preset_of(endpoint).name
    worded = [name for name, words in untaken.items() if words]
    assert refusals == (worded if role == "policy" else [])  # a judge's calls have neither top_p nor seed
