"""The decisions of the simulated judge: each compares texts by rules and says why."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from lrq.domain.marks import NO_STATEMENTS, NOTHING_RELEVANT, SUPPORT_VALUES
from lrq.sim.sections import Prompt
from lrq.sim.support import Supported, evidence, supported
from lrq.sim.text import (
    is_refusal,
    negated,
    overlap,
    parts,
    refuses,
    relevant,
    sentences,
    units,
    value_of,
)

_OPENER = re.compile(
    r"(?:sure|certainly|of course|okay|ok|hello|hi|thank|here (?:is|are)|in (?:summary|conclusion|short)|overall)\b"
    r"|好的|当然|您好|你好|谢谢|总之|综上|总的来说|总体而言|以下是",
    re.IGNORECASE,
)
_GENERIC = re.compile(
    r"\bsummar|\boverview\b|\bmain (?:idea|point|topic)|总结|概括|概述|摘要|主要内容|主旨", re.IGNORECASE
)
_PART = re.compile(r"(?:Part|第) ?\d+.*\d ?%")  # heading of a part in the list of points
_SUM = re.compile(r"(?<![\d.])(\d{1,9}) ?([-+*×]) ?(\d{1,9}) ?= ?(\d{1,18})(?![\d.])")
_MARK = re.compile(r"</?statement>|\[\[|\]\]", re.IGNORECASE)  # the answer's own, which would be read as ours
LONG = 5000  # characters from which an answer is no longer better for being longer
EXTRACTED = 10  # sentences an extraction quotes at most, so that it fits its limit of 1,024 tokens


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A reply in the making: `text` ends in the mark; an extraction has no reasoning before it."""

    text: str
    reasoning: str = ""


def _scored(prompt: Prompt, score: float, why: str, why_chinese: str) -> Verdict:
    bounded = min(10.0, max(0.0, score))
    return Verdict(text=f"[[{round(bounded, 1):g}]]", reasoning=why_chinese if prompt.chinese else why)


def helpfulness(prompt: Prompt) -> Verdict:
    """On topic in each part of the question, adding something to it, neither refusing nor overlong."""
    question, answer = prompt.first("question"), prompt.first("answer")
    said = units(answer)
    if not said or is_refusal(answer):
        return _scored(prompt, 1.0 if answer.strip() else 0.0, "The answer gives nothing.", "回答没有给出内容。")
    asked = parts(question)
    topic = sum(overlap(part, answer) for part in asked) / len(asked) if asked else 1.0
    new = said - units(question)
    fitting = min(1.0, len(new) / max(1, len(asked)))
    overlong = max(0.0, len(answer) / LONG - 1)
    score = 1 + 4 * fitting + (5 * topic if new else 0) - min(3.0, overlong)
    return _scored(
        prompt,
        score,
        f"The answer takes up {topic:.0%} of what is asked and adds {len(new)} terms.",
        f"回答涉及所问内容的{topic:.0%}，并补充了{len(new)}个词。",
    )


def logicality(prompt: Prompt) -> Verdict:
    """Free of contradiction, repetition and wrong sums; no outside knowledge."""
    said = [sentence for sentence in sentences(prompt.first("answer")) if units(sentence) or refuses(sentence)][:200]
    clashes = sum(_contradict(one, other) for one, other in combinations(said[:60], 2))
    repeated = len(said) - len({units(sentence) for sentence in said})
    wrong = sum(not _sum_holds(found) for sentence in said for found in _SUM.finditer(sentence))
    torn = any(refuses(sentence) for sentence in said) and not all(refuses(sentence) for sentence in said)
    score = 10 - 4 * clashes - 4 * wrong - 2 * torn - 6 * repeated / max(1, len(said)) if said else 5
    return _scored(
        prompt,
        score,
        f"{clashes} contradictions, {wrong} wrong sums, {repeated} repeated sentences.",
        f"{clashes}处矛盾，{wrong}处计算错误，{repeated}句重复。",
    )


def _contradict(one: str, other: str) -> bool:
    """Same subject with another value, or the same sentence once denied."""
    here, there = units(one), units(other)
    if here == there:
        return negated(one) != negated(other)
    value, different = units(value_of(one)), units(value_of(other))
    if not (value and different) or value & different or here - value != there - different:
        return False
    return not (negated(one) or negated(other))


def _sum_holds(found: re.Match[str]) -> bool:
    left, right, result = int(found[1]), int(found[3]), int(found[4])
    return result == {"+": left + right, "-": left - right}.get(found[2], left * right)


def statements(prompt: Prompt) -> Verdict:
    """The factual sentences of the answer, in order, each once."""
    found = dict.fromkeys(sentence for sentence in sentences(prompt.first("answer")) if _states(sentence))
    if not found:
        why = "回答没有陈述事实。" if prompt.chinese else "The answer states no fact."
        return Verdict(text=f"[[{NO_STATEMENTS}]]", reasoning=why)
    why = f"回答陈述了{len(found)}个事实。" if prompt.chinese else f"The answer states {len(found)} facts."
    quoted = (f"<statement>{_MARK.sub(' ', sentence)}</statement>" for sentence in found)
    return Verdict(text="\n".join(quoted), reasoning=why)


def _states(sentence: str) -> bool:
    """Neither refusal, question, opener, summary nor heading."""
    return (
        bool(units(sentence))
        and sentence[-1] not in "?？:："
        and not refuses(sentence)
        and _OPENER.match(sentence) is None
    )


def support(prompt: Prompt) -> Verdict:
    """Whether one place in the passages holds all units of the statement, some, or none."""
    found = supported(prompt.first("statement"), evidence(prompt.sections.get("passage", ())))
    return Verdict(text=f"[[{found.mark}]]", reasoning=_why(found, prompt.chinese))


def support_batch(prompt: Prompt) -> Verdict:
    """A line with its verdict for each of several statements."""
    places = evidence(prompt.sections.get("passage", ()))
    found = [supported(statement, places) for statement in prompt.sections.get("statement", ())]
    lines = (f"{n}. {_why(one, prompt.chinese)} [[{n}: {one.mark}]]" for n, one in enumerate(found, 1))
    return Verdict(text="\n".join(lines))


def _why(found: Supported, chinese: bool) -> str:
    return f"文段包含该陈述内容的{found.share:.0%}。" if chinese else f"The passages hold {found.share:.0%} of it."


def extraction(prompt: Prompt) -> Verdict:
    """The sentences of the document part that bear on the question, in order."""
    question, said = prompt.first("question"), sentences(prompt.first("document part"))
    asked = parts(question)
    if _GENERIC.search(question):
        found = [sentence for sentence in said if units(sentence)][:3]
    else:
        whole = frozenset[str]().union(*asked)
        bearing = [sentence for sentence in said if relevant(asked, sentence)]
        best = sorted(bearing, key=lambda sentence: -overlap(whole, sentence))[:EXTRACTED]
        found = [sentence for sentence in dict.fromkeys(bearing) if sentence in best]
    return Verdict(text="\n".join(f"- {sentence[:300]}" for sentence in found) or NOTHING_RELEVANT)


def completeness(prompt: Prompt) -> Verdict:
    """The share of the extracted points that the answer covers, by what they add to the question."""
    question, answer = prompt.first("question"), prompt.first("answer")
    points = _points(prompt.first("extracted points"))
    if not points:
        score = 10.0 if is_refusal(answer) else 3.0
        return _scored(prompt, score, "The document has nothing on this.", "文档中没有相关内容。")
    bearing = [point for point in points if relevant(parts(question), point)] or points
    said = units(answer)
    covered = sum(_covered(units(point), units(question), said) for point in bearing) / len(bearing)
    why = f"The answer covers {covered:.0%} of {len(bearing)} points."
    return _scored(prompt, 10 * covered, why, f"回答覆盖了{len(bearing)}个要点中的{covered:.0%}。")


def _points(extracted: str) -> list[str]:
    """The distinct sentences of the list, without its headings and the parts that hold nothing."""
    nothing = units(NOTHING_RELEVANT)
    found = {units(s): s for s in sentences(extracted) if _states(s) and units(s) != nothing and not _PART.match(s)}
    return [point for held, point in found.items() if held]


def _covered(point: frozenset[str], question: frozenset[str], said: frozenset[str]) -> float:
    told = point - question or point
    return len(told & said) / len(told)


def pairwise(prompt: Prompt) -> Verdict:
    """Better what serves the question and is borne out by the passages, sentence by sentence."""
    passages = evidence(prompt.sections.get("passage", ()))
    first, second = (_merit(prompt, prompt.first(name), passages) for name in ("answer a", "answer b"))
    letter = "C" if first == second else "A" if first > second else "B"
    why = f"The answers rate {first:g} and {second:g}."
    chinese = f"两个回答分别得{first:g}分和{second:g}分。"
    return Verdict(text=f"[[{letter}]]", reasoning=chinese if prompt.chinese else why)


def _merit(prompt: Prompt, answer: str, passages: Sequence[str]) -> float:
    asked = replace(prompt, sections={**prompt.sections, "answer": [answer]})
    merit = float(helpfulness(asked).text.strip("[]"))
    stated = [sentence for sentence in sentences(answer) if _states(sentence)]
    if not (passages and stated):
        return merit
    return merit + 10 * sum(SUPPORT_VALUES[supported(one, passages).mark] for one in stated) / len(stated)


DECISIONS: Mapping[str, Callable[[Prompt], Verdict]] = {
    "helpfulness": helpfulness,
    "logicality": logicality,
    "statements": statements,
    "support": support,
    "support_batch": support_batch,
    "extraction": extraction,
    "completeness": completeness,
    "pairwise": pairwise,
}
