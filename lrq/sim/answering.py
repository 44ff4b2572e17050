"""The simulated policy: it answers from the document at the prompt's head, well or badly by the draw."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from lrq.sim.text import CJK, parts, sentences, units, value_of

_CHINESE = re.compile(f"[{CJK}]")
_LABEL = re.compile(r"^\s*(?:question|query|问题)\s*[:：]\s*", re.IGNORECASE)
_FENCED = re.compile(r"^(~{4,})\n(.*?)\n\1$(.*)", re.DOTALL | re.MULTILINE)
_NUMBER = re.compile(r"\d+")
# Shares of the manners an answer may have when it is sampled; at temperature 0 it is the first.
MANNERS: Sequence[tuple[str, float]] = (("right", 0.4), ("partial", 0.25), ("wrong", 0.2), ("refusal", 0.15))


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A chat prompt taken apart: what is read and what is asked of it."""

    document: str
    question: str


def take_apart(messages: Sequence[Mapping[str, str]]) -> Asked:
    """Split `messages`, a prompt, into the document and the question of its last user message.

    A fenced document ends with its fence. Without one the last line is the question, or the last sentence if
    there is but one line; the document may then stand in the messages before.
    """
    before = "\n".join(message["content"] for message in messages[:-1])
    text = messages[-1]["content"].strip()
    if fenced := _FENCED.search(text):
        document, question = fenced[2], fenced[3].strip() or text[: fenced.start()].strip()
    else:
        document, _, question = text.rpartition("\n")
        if not document and (pieces := sentences(text)):
            document, question = " ".join(pieces[:-1]), pieces[-1]
    return Asked(document=document or before, question=_LABEL.sub("", question))


def manner(draw: float) -> str:
    """Return the manner of MANNERS for `draw`, a number in [0, 1)."""
    for name, share in MANNERS:
        if draw < share:
            return name
        draw -= share
    return MANNERS[-1][0]


def respond(asked: Asked, how: str, draw: int) -> str:
    """Return an answer to what is `asked` in the manner `how`; `draw` picks among the wrong values."""
    chinese = _CHINESE.search(asked.question) is not None
    refusal = "文档中没有提到。" if chinese else "I cannot tell ."
    facts = [fact for fact in _facts(asked) if fact]
    if how == "refusal" or not facts:
        return refusal
    if how == "partial":
        facts = facts[: len(facts) // 2] or [_halved(facts[0])]
    if how == "wrong":
        facts[draw % len(facts)] = _altered(facts[draw % len(facts)], _indexed(asked.document).sentences, draw)
    closed = (fact if fact[-1] in ".!?。！？" else fact + ("。" if chinese else " .") for fact in facts)
    return ("" if chinese else " ").join(dict.fromkeys(closed))


@dataclass(frozen=True, kw_only=True)
class _Index:
    sentences: Sequence[str]
    frequency: Mapping[str, int]  # in how many sentences a unit stands


@lru_cache(maxsize=32)
def _indexed(document: str) -> _Index:
    stated = [sentence for sentence in sentences(document) if units(sentence)]
    return _Index(sentences=stated, frequency=Counter(unit for sentence in stated for unit in units(sentence)))


@lru_cache(maxsize=256)
def _facts(asked: Asked) -> tuple[str, ...]:
    """Return for each part of the question the sentence that shares its rarest units, or nothing."""
    index = _indexed(asked.document)

    def weight(part: frozenset[str], sentence: str) -> float:
        shared = part & units(sentence)
        return sum(math.log(1 + len(index.sentences) / index.frequency[unit]) for unit in shared)

    best = (max(index.sentences, key=lambda s: weight(part, s), default="") for part in parts(asked.question))
    pairs = ((part, sentence) for part, sentence in zip(parts(asked.question), best, strict=True))
    return tuple(sentence if part & units(sentence) else "" for part, sentence in pairs)


def _altered(fact: str, stated: Sequence[str], draw: int) -> str:
    """Return the fact with another sentence's value, else with another number, else another sentence."""
    value = value_of(fact).strip(" .。！!")
    subject = units(fact) - units(value)
    others = {
        alternative: None
        for sentence in stated
        if (alternative := value_of(sentence).strip(" .。！!")) and alternative != value and subject & units(sentence)
    }
    if value and others:
        head, _, tail = fact.rpartition(value)
        return head + list(others)[draw % len(others)] + tail
    if _NUMBER.search(fact):
        return _NUMBER.sub(lambda number: str(int(number[0]) + 1 + draw % 7), fact, count=1)
    return stated[draw % len(stated)]


def _halved(fact: str) -> str:
    half = fact[: len(fact) // 2]
    return half.rpartition(" ")[0] or half
