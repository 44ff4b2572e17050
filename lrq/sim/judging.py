"""The decisions of the simulated judge: each compares texts by rules and says why."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from lrq.domain.marks import NO_STATEMENTS, NOTHING_RELEVANT, SUPPORT_VALUES
from lrq.sim.sections import Prompt
from lrq.sim.support import Supported, evidence, supported
from lrq.sim.text import is_refusal, negated, overlap, parts, refuses, relevant, sentences, units, value_of

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
    """Score by being on topic in each part of the question, adding something, neither refusing nor overlong."""
    question, answer = prompt.first("question"), prompt.first("answer")
    content = units(answer)
    if not content or is_refusal(answer):
        return _scored(prompt, 1.0 if answer.strip() else 0.0, "The answer gives nothing.", "回答没有给出内容。")
    questions = parts(question)
    topic = sum(overlap(part, answer) for part in questions) / len(questions) if questions else 1.0
    new = content - units(question)
    fitting = min(1.0, len(new) / max(1, len(questions)))
    overlong = max(0.0, len(answer) / LONG - 1)
    score = 1 + 4 * fitting + (5 * topic if new else 0) - min(3.0, overlong)
    return _scored(
        prompt,
        score,
        f"The answer takes up {topic:.0%} of what is asked and adds {len(new)} terms.",
        f"回答涉及所问内容的{topic:.0%}，并补充了{len(new)}个词。",
    )


def logicality(prompt: Prompt) -> Verdict:
    """Score by freedom from contradiction, repetition and wrong sums; no outside knowledge."""
    claims = [sentence for sentence in sentences(prompt.first("answer")) if units(sentence) or refuses(sentence)][:200]
    clashes = sum(_contradict(a, b) for a, b in combinations(claims[:60], 2))
    repeated = len(claims) - len({units(sentence) for sentence in claims})
    wrong = sum(not _sum_holds(equation) for sentence in claims for equation in _SUM.finditer(sentence))
    torn = any(refuses(sentence) for sentence in claims) and not all(refuses(sentence) for sentence in claims)
    score = 10 - 4 * clashes - 4 * wrong - 2 * torn - 6 * repeated / max(1, len(claims)) if claims else 5
    return _scored(
        prompt,
        score,
        f"{clashes} contradictions, {wrong} wrong sums, {repeated} repeated sentences.",
        f"{clashes}处矛盾，{wrong}处计算错误，{repeated}句重复。",
    )


def _contradict(first: str, second: str) -> bool:
    """Tell whether both have the same subject with another value, or are the same sentence once denied."""
    here, there = units(first), units(second)
    if here == there:
        return negated(first) != negated(second)
    value, different = units(value_of(first)), units(value_of(second))
    if not (value and different) or value & different or here - value != there - different:
        return False
    return not (negated(first) or negated(second))


def _sum_holds(equation: re.Match[str]) -> bool:
    left, right, result = int(equation[1]), int(equation[3]), int(equation[4])
    return result == {"+": left + right, "-": left - right}.get(equation[2], left * right)


def statements(prompt: Prompt) -> Verdict:
    """List the factual sentences of the answer, in order, each once."""
    facts = dict.fromkeys(sentence for sentence in sentences(prompt.first("answer")) if _states(sentence))
    if not facts:
        comment = "回答没有陈述事实。" if prompt.chinese else "The answer states no fact."
        return Verdict(text=f"[[{NO_STATEMENTS}]]", reasoning=comment)
    comment = f"回答陈述了{len(facts)}个事实。" if prompt.chinese else f"The answer states {len(facts)} facts."
    quoted = (f"<statement>{_MARK.sub(' ', sentence)}</statement>" for sentence in facts)
    return Verdict(text="\n".join(quoted), reasoning=comment)


def _states(sentence: str) -> bool:
    """Neither refusal, question, opener, summary nor heading."""
    return (
        bool(units(sentence))
        and sentence[-1] not in "?？:："
        and not refuses(sentence)
        and _OPENER.match(sentence) is None
    )


def support(prompt: Prompt) -> Verdict:
    """Judge whether one place in the passages holds all units of the statement, some, or none."""
    verdict = supported(prompt.first("statement"), evidence(prompt.sections.get("passage", ())))
    return Verdict(text=f"[[{verdict.mark}]]", reasoning=_why(verdict, prompt.chinese))


def support_batch(prompt: Prompt) -> Verdict:
    """Judge several statements, a line with its verdict for each."""
    places = evidence(prompt.sections.get("passage", ()))
    verdicts = [supported(statement, places) for statement in prompt.sections.get("statement", ())]
    lines = (f"{n}. {_why(verdict, prompt.chinese)} [[{n}: {verdict.mark}]]" for n, verdict in enumerate(verdicts, 1))
    return Verdict(text="\n".join(lines))


def _why(verdict: Supported, chinese: bool) -> str:
    return f"文段包含该陈述内容的{verdict.share:.0%}。" if chinese else f"The passages hold {verdict.share:.0%} of it."


def extraction(prompt: Prompt) -> Verdict:
    """Quote the sentences of the document part that bear on the question, in order."""
    question, stated = prompt.first("question"), sentences(prompt.first("document part"))
    questions = parts(question)
    if _GENERIC.search(question):
        quoted = [sentence for sentence in stated if units(sentence)][:3]
    else:
        topic = frozenset[str]().union(*questions)
        bearing = [sentence for sentence in stated if relevant(questions, sentence)]
        best = sorted(bearing, key=lambda sentence: -overlap(topic, sentence))[:EXTRACTED]
        quoted = [sentence for sentence in dict.fromkeys(bearing) if sentence in best]
    return Verdict(text="\n".join(f"- {sentence[:300]}" for sentence in quoted) or NOTHING_RELEVANT)


def completeness(prompt: Prompt) -> Verdict:
    """Score the share of the extracted points that the answer covers, by what they add to the question."""
    question, answer = prompt.first("question"), prompt.first("answer")
    points = _points(prompt.first("extracted points"))
    if not points:
        score = 10.0 if is_refusal(answer) else 3.0
        return _scored(prompt, score, "The document has nothing on this.", "文档中没有相关内容。")
    bearing = [point for point in points if relevant(parts(question), point)] or points
    content = units(answer)
    covered = sum(_covered(units(point), units(question), content) for point in bearing) / len(bearing)
    reasoning = f"The answer covers {covered:.0%} of {len(bearing)} points."
    return _scored(prompt, 10 * covered, reasoning, f"回答覆盖了{len(bearing)}个要点中的{covered:.0%}。")


def _points(extracted: str) -> list[str]:
    """Return the distinct sentences of the list, without its headings and the parts that hold nothing."""
    nothing = units(NOTHING_RELEVANT)
    points = {units(s): s for s in sentences(extracted) if _states(s) and units(s) != nothing and not _PART.match(s)}
    return [point for content, point in points.items() if content]


def _covered(point: frozenset[str], question: frozenset[str], answered: frozenset[str]) -> float:
    news = point - question or point
    return len(news & answered) / len(news)


def pairwise(prompt: Prompt) -> Verdict:
    """Prefer what serves the question and is borne out by the passages, sentence by sentence."""
    passages = evidence(prompt.sections.get("passage", ()))
    first, second = (_merit(prompt, prompt.first(name), passages) for name in ("answer a", "answer b"))
    letter = "C" if first == second else "A" if first > second else "B"
    english = f"The answers rate {first:g} and {second:g}."
    chinese = f"两个回答分别得{first:g}分和{second:g}分。"
    return Verdict(text=f"[[{letter}]]", reasoning=chinese if prompt.chinese else english)


def _merit(prompt: Prompt, answer: str, passages: Sequence[str]) -> float:
    case = replace(prompt, sections={**prompt.sections, "answer": [answer]})
    merit = float(helpfulness(case).text.strip("[]"))
    stated = [sentence for sentence in sentences(answer) if _states(sentence)]
    if not (passages and stated):
        return merit
    return merit + 10 * sum(SUPPORT_VALUES[supported(claim, passages).mark] for claim in stated) / len(stated)


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
