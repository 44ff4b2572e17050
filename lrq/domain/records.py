"""The words of lrq as records: frozen, keyword-only, standard library only."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import orjson

from lrq.domain.control_tokens import count_control_tokens

Role = Literal["judge", "policy", "teacher", "embedding"]
ROLES: tuple[Role, ...] = ("judge", "policy", "teacher", "embedding")

# Why a response has no text, where drawing it again would end the same.
NOT_FINITE = "failed: the policy's logits are not finite"
UNFINISHED_THOUGHT = "it ended within its thought"
UNRENDERABLE = "the policy's chat template or tokenizer did not end, or broke down, on this text"

Api = Literal["chat", "embeddings", "score"]

Message = Mapping[str, str]  # {"role": "system" | "user" | "assistant", "content": text}


def utf8_length(text: str) -> int:
    """Return the bytes of a text in UTF-8; ASCII texts know theirs without being encoded."""
    return len(text) if text.isascii() else len(text.encode())


_STABLE = re.compile("[\x00-\x7f\u3001-\u3003\u3400-\u9fff]+")  # the same in every normal form


def _growth(text: str) -> int:
    """Bytes that a text gains in the normal form in which it is longest, which is a decomposed one."""
    changing = _STABLE.sub("", text)
    grown = (utf8_length(unicodedata.normalize(form, changing)) for form in ("NFD", "NFKD"))
    return max(0, max(grown) - utf8_length(changing)) if changing else 0


@dataclass(frozen=True, kw_only=True)
class Item:
    """One line of the dataset, with its context."""

    id: str  # the user's id, 1 to 200 printable characters
    context: str = ""
    question: str = ""
    answer: str | None = None  # the reference answer, where the dataset has one
    fields: Mapping[str, Any] = field(default_factory=dict)  # system, rubrics, questions, messages, turns


# Stands in a prompt's messages for the item's context: the only part that may be cut, and kept once for all prompts.
CONTEXT = "\ufffc"


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One chat that a model is asked to continue; stored when it is made, so that training sees what was sampled."""

    messages: tuple[Message, ...]  # with CONTEXT where the context stands, at most once
    name: str = ""  # the recipe's word for it: "short", "long"
    span: "Chunk | None" = None  # the stretch of the context; None: all of it
    by: Literal["policy", "teacher", "judge"] = "policy"
    samples: int | None = None  # responses to draw; None: sample.responses
    sampling: Mapping[str, Any] = field(default_factory=dict)  # over the run's sample section
    followup: str = ""  # what a later turn of the same conversation asks, where the context was given before
    typical: str = ""  # a reply as it may come, for estimates; empty: a stretch of text

    def passage(self, context: str) -> str:
        """Return the stretch of the item's `context` that this prompt shows."""
        return context if self.span is None else context[self.span.start : self.span.end]

    def render(self, context: str) -> list[Message]:
        """Return the messages with this prompt's stretch of `context` in the place of CONTEXT."""
        passage = self.passage(context)
        return [{**message, "content": passage.join(message["content"].split(CONTEXT, 1))} for message in self.messages]


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


Ref = tuple[int, int]  # (prompt, k): one response of an item


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One exchange that is trained: a prompt with what is preferred and, for preferences, what is not."""

    prompt: int
    chosen: Ref | str  # a response of any prompt of the item, or a text of the dataset
    rejected: Ref | str | None = None  # None: a demonstration
    reference: int | None = None  # the prompt that the reference model sees; None: the same


@dataclass(frozen=True, kw_only=True)
class Row:
    """What training reads: one or several turns of one conversation."""

    turns: tuple[Turn, ...]
    margin: float | None = None  # reward of chosen minus reward of rejected
    figures: Mapping[str, float] = field(default_factory=dict)  # what the loss reads besides: p_w, p_l


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
    by_words: bool = False  # the query has no vector: an embedding endpoint cannot take it


@dataclass(frozen=True, kw_only=True)
class Call:
    """One paid request: everything its key depends on."""

    role: Role
    endpoint: str  # the endpoint's name in the settings
    model: str
    messages: Sequence[Message] = ()
    input: Sequence[str] = ()  # texts to embed; of a judge that scores: a prompt and the responses to it
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    n: int = 1  # completions asked for in one request
    seed: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)  # further fields of the request body
    draw: int = 0  # vote or response index
    attempt: int = 0  # re-asks after an unreadable reply
    series: int = 0  # raised only by an explicit retry
    identity: str = ""  # of the server; empty: a run that was frozen before servers were told apart

    @property
    def api(self) -> Api:
        """Return how it is asked: by chat, for embeddings, or for scores of texts."""
        return "embeddings" if self.role == "embedding" else "score" if self.input else "chat"

    @cached_property
    def size(self) -> int:
        """Return the bytes of UTF-8 of all that is asked: of messages and `input`, and of `extra` as JSON.

        Tools and schemas of answers stand in `extra`, and the model reads them too.
        """
        length = sum(utf8_length(text) for text in self._texts())
        return length + (len(orjson.dumps(self.extra)) if self.extra else 0)

    @cached_property
    def control_tokens(self) -> int:
        """Count the control tokens that the messages spell out: each grows by a byte where it is broken."""
        return sum(count_control_tokens(message["content"]) for message in self.messages)

    @cached_property
    def longest(self) -> int:
        """Return the size in bytes in that normal form of Unicode in which it is longest, control tokens broken."""
        growth = sum(_growth(text) for text in self._texts() if not text.isascii())
        return self.size + self.control_tokens + growth

    def _texts(self) -> list[str]:
        return [message["content"] for message in self.messages] + list(self.input)


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
    cached_tokens: int = 0  # of the prompt's
    reasoning_tokens: int = 0  # of the completion's


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
    vectors: Sequence[Sequence[float]] = ()  # embeddings, or scores of a judge, in the order of the texts
    usage: Usage = field(default_factory=Usage)
    cost_micros: int | None = None  # millionths of the currency; None: unpriced
    reused: bool = False  # found in the ledger or shared with another asker
