"""The words of lrq as records: frozen, keyword-only, standard library only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import orjson

Role = Literal["judge", "policy", "teacher", "embedding"]
ROLES: tuple[Role, ...] = ("judge", "policy", "teacher", "embedding")

# Why a response has no text, where drawing it again would end the same.
NOT_FINITE = "failed: the policy's logits are not finite"
UNFINISHED_THOUGHT = "it ended within its thought"

Message = Mapping[str, str]  # {"role": "system" | "user" | "assistant", "content": text}


def utf8_length(text: str) -> int:
    """Bytes of a text; ASCII texts know theirs without being encoded."""
    return len(text) if text.isascii() else len(text.encode())


@dataclass(frozen=True, kw_only=True)
class Item:
    """One line of the dataset, with its context."""

    id: str  # the user's id, 1 to 200 printable characters
    context: str = ""
    question: str = ""
    answer: str | None = None  # the reference answer, where the dataset has one
    fields: Mapping[str, Any] = field(default_factory=dict)  # system, rubrics, short_contexts, messages, turns


@dataclass(frozen=True, kw_only=True)
class Response:
    """One answer of the policy to a prompt; known by (item, round, prompt, k)."""

    text: str
    k: int
    prompt: int = 0
    round: int = 0
    is_cut: bool = False  # by max_new_tokens: it has no end


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One criterion: its name and the scale of its values."""

    name: str
    low: float = 0.0
    high: float = 10.0


ScoreState = Literal["value", "not_applicable", "unscored"]


@dataclass(frozen=True, kw_only=True)
class Score:
    """One response in one dimension: a value, not applicable, or unscored with a reason."""

    dimension: str
    k: int
    prompt: int = 0
    state: ScoreState = "value"
    value: float | None = None  # on the dimension's scale; None unless state is "value"
    reason: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)  # JSON: the keys of its calls, statements, passages


@dataclass(frozen=True, kw_only=True)
class Reward:
    """What the recipe makes of one response's scores; value is None if any is unscored."""

    k: int
    value: float | None
    prompt: int = 0
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A row of preference: the responses' k, and what the loss may need besides."""

    chosen: int
    rejected: int
    prompt: int = 0
    margin: float = 0.0  # reward of chosen minus reward of rejected
    p_w: float | None = None  # win rates in [0, 1], for the squared loss
    p_l: float | None = None


@dataclass(frozen=True, kw_only=True)
class NoRow:
    """An item that yields no row, and why."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A stretch of a text as character offsets, start inclusive, end exclusive."""

    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A chunk of the context that was found for a query."""

    index: int  # place among the context's chunks
    start: int
    end: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Call:
    """One paid request: everything its key depends on."""

    role: Role
    endpoint: str  # the endpoint's name in the settings
    model: str
    messages: Sequence[Message] = ()
    input: Sequence[str] = ()  # texts to embed, for the embedding role alone
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    n: int = 1  # completions asked for in one request
    seed: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)  # further fields of the request body
    draw: int = 0  # vote or response index
    attempt: int = 0  # re-asks after an unreadable reply
    series: int = 0  # raised only by an explicit retry

    @cached_property
    def size(self) -> int:
        """Bytes of UTF-8 of all that is asked; tools and schemas of answers among `extra` are read by the model too."""
        asked = sum(map(utf8_length, (*(message["content"] for message in self.messages), *self.input)))
        return asked + (len(orjson.dumps(self.extra)) if self.extra else 0)


@dataclass(frozen=True, kw_only=True)
class Purpose:
    """Whom a call is made for; not part of its key."""

    run: int
    item: int | None = None  # the item's number in the ledger
    step: str = ""
    dimension: str = ""
    kind: str = ""  # which prompt of the recipe: "statements", "support", …
    started: bool = True  # the item has been worked on before: it goes first


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens as the server counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One completion of a reply; reasoning is kept apart from the answer."""

    text: str
    reasoning: str = ""
    finish: str = "stop"
    ids: Sequence[int] = ()  # the tokens of the whole, where the server says them


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A committed reply."""

    key: str
    choices: Sequence[Choice] = ()
    vectors: Sequence[Sequence[float]] = ()  # embeddings, in the order of the input
    usage: Usage = field(default_factory=Usage)
    cost_micros: int | None = None  # millionths of the currency; None: unpriced
    reused: bool = False  # found in the ledger or shared with another asker
