"""What is known of hosts before they are asked."""

import pytest

from lrq.calls.presets import base_url, preset_of, refused_by
from lrq.config import Endpoint


@pytest.mark.parametrize(
    ("url", "name", "base"),
    [
        ("https://api.openai.com", "OpenAI", "https://api.openai.com/v1"),
        ("https://api.openai.com/v1", "OpenAI", "https://api.openai.com/v1"),
        ("https://eu.api.openai.com/v1", "OpenAI", "https://eu.api.openai.com/v1"),
        ("https://x.openai.azure.com", "Azure OpenAI", "https://x.openai.azure.com/openai/v1"),
        ("https://x.openai.azure.com/openai/deployments/d", "Azure OpenAI, by deployment", None),
        ("http://localhost:1/azure/openai/deployments/d", "Azure OpenAI, by deployment", None),
        ("https://generativelanguage.googleapis.com", "Gemini", None),
        ("https://openrouter.ai", "OpenRouter", "https://openrouter.ai/api/v1"),
        ("https://api.deepseek.com", "DeepSeek", "https://api.deepseek.com/v1"),
        ("https://dashscope-intl.aliyuncs.com", "DashScope", None),
        ("https://open.bigmodel.cn", "Zhipu", "https://open.bigmodel.cn/api/paas/v4"),
        ("https://api.groq.com/openai/v1", "Groq", "https://api.groq.com/openai/v1"),
        ("http://localhost:8000/v1", "", "http://localhost:8000/v1"),
        ("http://localhost:8000", "", "http://localhost:8000"),
        ("https://api.openai.com.evil.example/v1", "", "https://api.openai.com.evil.example/v1"),
    ],
)
def test_hosts_are_known_by_their_whole_names(url: str, name: str, base: str | None) -> None:
    """A URL without a path gets the host's; one that only looks like a host gets nothing."""
    endpoint = Endpoint(url=url, model="m", api_key="sk-1")  # type: ignore[arg-type]
    assert preset_of(endpoint).name == name
    assert base is None or base_url(endpoint) == base


@pytest.mark.parametrize(
    ("model", "is_reasoner"),
    [
        ("o1", True),
        ("o3-mini", True),
        ("o4-mini-2025-04-16", True),
        ("gpt-5", True),
        ("gpt-5-mini", True),
        ("gpt-5-chat-latest", False),
        ("gpt-4o", False),
        ("omni", False),
        ("o3x", False),
    ],
)
def test_openai_s_reasoners_take_no_temperature(model: str, is_reasoner: bool) -> None:
    """Nor max_tokens; the same names elsewhere say nothing."""
    openai = Endpoint(url="https://api.openai.com/v1", model=model)
    assert ({"max_tokens", "temperature"} <= refused_by(openai, model)) == is_reasoner
    assert refused_by(Endpoint(url="http://localhost:1/v1", model=model), model) == frozenset()
