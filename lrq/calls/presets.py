"""What is known of hosts before they are asked: one table; what it does not hold is learned from their words."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from lrq.config import Endpoint

# Reasoning models that take the limit as max_completion_tokens and no sampling parameters.
_REASONERS = {r"(?:.*/)?(?:o[134](?:-.*)?|gpt-5(?!.*chat).*)": ("max_tokens", "temperature", "top_p")}


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How a host wants to be called; `host` is a pattern of its whole name, `path` of a part of the URL's."""

    name: str
    host: str = r".*"
    path: str = ""
    base: str = ""  # the path where a URL names the host alone
    key_header: str = "Authorization"
    key_prefix: str = "Bearer "
    query: Mapping[str, str] = field(default_factory=dict)  # where the URL and the settings say nothing
    refused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # pattern of a model → what it does not take


PRESETS = (
    Preset(
        name="Azure OpenAI, by deployment",
        path=r"/openai/deployments/[^/]+",
        key_header="api-key",
        key_prefix="",
        query={"api-version": "2024-10-21"},
        refused=_REASONERS,
    ),
    Preset(
        name="Azure OpenAI",
        host=r".*\.(?:openai\.azure|cognitiveservices\.azure|services\.ai\.azure)\.com",
        base="/openai/v1",
        key_header="api-key",
        key_prefix="",
        refused=_REASONERS,
    ),
    Preset(name="OpenAI", host=r"(?:\w+\.)?api\.openai\.com", base="/v1", refused=_REASONERS),
    Preset(name="Anthropic", host=r"api\.anthropic\.com", base="/v1", refused={r".*": ("n",)}),
    Preset(name="Gemini", host=r"generativelanguage\.googleapis\.com", base="/v1beta/openai"),
    Preset(name="OpenRouter", host=r"openrouter\.ai", base="/api/v1"),
    Preset(name="DeepSeek", host=r"api\.deepseek\.com", base="/v1"),
    Preset(name="Mistral", host=r"api\.mistral\.ai", base="/v1", refused={r".*": ("seed",)}),
    Preset(name="DashScope", host=r"dashscope(?:-\w+)?\.aliyuncs\.com", base="/compatible-mode/v1"),
    Preset(name="Moonshot", host=r"api\.moonshot\.(?:cn|ai)", base="/v1"),
    Preset(name="Zhipu", host=r"open\.bigmodel\.cn|api\.z\.ai", base="/api/paas/v4"),
    Preset(name="Groq", host=r"api\.groq\.com", base="/openai/v1", refused={r".*": ("n",)}),
    Preset(name="Together", host=r"api\.together\.(?:xyz|ai)", base="/v1"),
    Preset(name="Fireworks", host=r"api\.fireworks\.ai", base="/inference/v1"),
    Preset(name="xAI", host=r"api\.x\.ai", base="/v1"),
    Preset(name="Perplexity", host=r"api\.perplexity\.ai"),
    Preset(name="Cohere", host=r"api\.cohere\.(?:ai|com)", base="/compatibility/v1"),
)
NOTHING = Preset(name="")


def preset_of(endpoint: Endpoint) -> Preset:
    """Return what is known of the endpoint's host; NOTHING of one of your own."""
    parts = urlsplit(endpoint.url)
    for preset in PRESETS:
        if re.fullmatch(preset.host, parts.hostname or "") and re.search(preset.path, parts.path):
            return preset
    return NOTHING


def base_url(endpoint: Endpoint) -> str:
    """Return the URL that paths such as `/chat/completions` are added to."""
    return endpoint.url + ("" if urlsplit(endpoint.url).path else preset_of(endpoint).base)


def refused_by(endpoint: Endpoint, model: str) -> frozenset[str]:
    """Return the parameters that the host is known not to take of that `model`; they are not sent."""
    refused = preset_of(endpoint).refused.items()
    return frozenset(name for pattern, names in refused if re.fullmatch(pattern, model) for name in names)
