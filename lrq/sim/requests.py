"""Reading request bodies of the OpenAI API, as far as the simulator serves them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from lrq.sim.options import Options


class BadRequest(Exception):
    """The server refuses the request and would again."""

    def __init__(self, message: str, *, status: int = 400, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """The fields of /v1/chat/completions that change a reply."""

    model: str
    messages: Sequence[Mapping[str, str]]
    n: int
    max_tokens: int | None
    temperature: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class EmbeddingRequest:
    """The fields of /v1/embeddings that change a reply."""

    model: str
    texts: Sequence[str]
    dimensions: int
    encoding: str


def read_body(body: bytes, options: Options) -> dict[str, Any]:
    """Parse the JSON object of a body and check its model against `options`. Raises BadRequest."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadRequest("The body is not JSON.") from None
    if not isinstance(fields, dict) or not isinstance(fields.get("model"), str):
        raise BadRequest("The body must be an object that names its model.")
    if options.models and fields["model"] not in options.models:
        raise BadRequest(f"The model `{fields['model']}` does not exist.", status=404, code="model_not_found")
    return fields


def read_chat(body: bytes, options: Options) -> ChatRequest:
    """Parse a chat request. Raises BadRequest for what the simulator does not serve."""
    fields = read_body(body, options)
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages or not all(map(_is_message, messages)):
        raise BadRequest("`messages` must be a list of objects with a role and a text as content.")
    if fields.get("stream"):
        raise BadRequest("The simulator does not stream.", code="unsupported_value")
    limit = fields.get("max_completion_tokens", fields.get("max_tokens"))
    return ChatRequest(
        model=fields["model"],
        messages=messages,
        n=_whole("n", fields.get("n"), 1, low=1, high=128),
        max_tokens=None if limit is None else _whole("max_tokens", limit, 1, low=1, high=10**7),
        temperature=_temperature(fields.get("temperature")),
        seed=_whole("seed", fields.get("seed"), 0, low=-(2**63), high=2**64),
    )


def read_embedding(body: bytes, options: Options) -> EmbeddingRequest:
    """Parse an embedding request. Raises BadRequest for what the simulator does not serve."""
    fields = read_body(body, options)
    texts = fields.get("input")
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise BadRequest("`input` must be a text or a list of texts, none empty.")
    encoding = fields.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise BadRequest("`encoding_format` must be float or base64.")
    dimensions = _whole("dimensions", fields.get("dimensions"), options.dimensions, low=1, high=8192)
    return EmbeddingRequest(model=fields["model"], texts=texts, dimensions=dimensions, encoding=encoding)


def _is_message(message: object) -> bool:
    return (
        isinstance(message, dict)
        and isinstance(message.get("content"), str)
        and message.get("role") in ("system", "developer", "user", "assistant")
    )


def _whole(name: str, value: object, default: int, *, low: int, high: int) -> int:
    if value is None:
        return default
    if type(value) is not int or not low <= value <= high:
        raise BadRequest(f"`{name}` must be a whole number from {low} to {high}.")
    return value


def _temperature(value: object) -> float:
    if value is None:
        return 1.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 2:
        raise BadRequest("`temperature` must be a number from 0 to 2.")
    return float(value)
