"""Texts as sentences and content units, English and Chinese, by rules alone."""

import re
from functools import lru_cache

CJK = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_UNIT = re.compile(rf"\d+(?:[.,]\d+)*|[{CJK}]+|[^\W\d_{CJK}]+(?:['’][^\W\d_{CJK}]+)?")
_CJK_START = re.compile(f"[{CJK}]")

_STOP_WORDS = """
    a about above according after again all along also although am among an and any are as at be because been before
    being both but by can could did do does document during each either else for from further had has have having he her
    here hers him his how however i if in into is it its itself just may me might more most must my of off on once only
    or other our out over own passage per please s same shall she should so some such t tell text than that the their
    them then there these they this those through thus to too under until up upon us very via was we were what when
    where whether which while who whom whose why will with within would you your
"""
_STOP = frozenset(_STOP_WORDS.split())
# Words that carry no content of their own; longer ones first, so that they are not cut in two.
_STOP_CJK = re.compile(
    "为什么|请问|什么|怎么|怎样|如何|多少|哪些|哪里|哪个|为何|是否|以及|并且|而且|但是|因为|所以|由于|根据|文档|文中|文章|"
    "分别|我们|他们|她们|它们|这个|那个|这些|那些|一个|[的了是在和与及或也都就而且被把对从于为以之其这那哪吗呢吧啊谁何请您你我他她它着过并给让将]"
)
_NEGATIONS = frozenset(["not", "no", "never", "neither", "nor", "none", "without", "cannot"])
_NEGATION = re.compile(
    rf"\b(?:{'|'.join(sorted(_NEGATIONS))})\b|n['’]t\b|不(?![仅同但断])|[没无]|未(?!来)|非(?![常洲])",
    re.IGNORECASE,
)

_WRAPPED = re.compile(r"(?<=[^\s.!?:;])[ \t]*\n(?=[a-z])")  # a line of prose broken by its page
_BULLET = re.compile(r"^\s*(?:[-*•#>]+|\(?\d{1,3}[.)、]|[（(]?[一二三四五六七八九十]{1,3}[)）、])\s*")
_END = re.compile(r"(?<=[。！？；])|(?<=[.!?])(?<!\bMr\.)(?<!\bDr\.)(?<!\bMs\.)(?<!\bvs\.)(?<!\bVol\.)(?<!\bNo\.)\s+")
_CLAUSE = re.compile(r"[,，;；、]|\band\b|\bbut\b|而|但")
_COPULA = re.compile(r"\b(?:is|are|was|were|equals)\b|是|(?<![因认作成以])为(?![了什])|等于", re.IGNORECASE)
_PARTS = re.compile(r"\band\b|[,;?，；？、和与及]|以及|还有", re.IGNORECASE)
_REFUSAL = re.compile(
    r"\b(?:cannot|can['’]t|can not|could not|couldn['’]t|unable to)"
    r" (?:tell|answer|determine|find|say|help|provide|assist)"
    r"|\b(?:does|do|did)(?: not|n['’]t) (?:say|mention|state|contain|provide|specify|know|give)"
    r"|\bnot (?:mentioned|stated|specified|provided|given)\b|\bno (?:information|answer|mention)\b|\bsorry\b"
    r"|无法|不知道|不清楚|没有(?:提到|提及|说明|给出|相关|找到)|未(?:提及|提到|说明|给出|找到)|抱歉|对不起",
    re.IGNORECASE,
)


def _stem(word: str) -> str:
    """Strip the commonest endings of a word, so that 'values' meets 'value'."""
    word = word.lower().split("'")[0].split("’")[0]
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    for ending in ("ing", "ed", "e"):
        if len(word) > len(ending) + 2 and word.endswith(ending):
            return word.removesuffix(ending)
    return word


def _bigrams(run: str) -> list[str]:
    bigrams: list[str] = []
    for segment in _STOP_CJK.split(_NEGATION.sub("的", run)):
        bigrams += [segment[i : i + 2] for i in range(len(segment) - 1)] or [segment]
    return [unit for unit in bigrams if unit]


@lru_cache(maxsize=65536)
def _units_of(token: str) -> tuple[str, ...]:
    if _CJK_START.match(token):
        return tuple(_bigrams(token))
    if token[0].isdigit():
        return (token.replace(",", ""),)
    low = token.lower()
    return () if low in _STOP or low in _NEGATIONS else (_stem(token),)


def words(text: str) -> list[str]:
    """Return content units in order: stems, numbers without separators, bigrams of Chinese; no function words."""
    return [unit for token in _UNIT.findall(text) for unit in _units_of(token)]


@lru_cache(maxsize=16384)
def units(text: str) -> frozenset[str]:
    """Return the distinct content units of a sentence."""
    return frozenset(words(text))


@lru_cache(maxsize=512)
def sentences(text: str) -> tuple[str, ...]:
    """Split a text into sentences without bullets; lines end one unless the next begins in lower case."""
    lines = _WRAPPED.sub(" ", text).splitlines()
    stripped = (piece.strip() for line in lines for piece in _END.split(_BULLET.sub("", line)))
    return tuple(piece for sentence in stripped if sentence for piece in _single(sentence))


def _single(sentence: str) -> list[str]:
    """Split a sentence into the facts it strings together ('A is x, B is y'), if each has a verb of its own."""
    facts = [fact for piece in _CLAUSE.split(sentence) if (fact := piece.strip())]
    return facts if all(_COPULA.search(fact) for fact in facts) else [sentence]


def clauses(sentence: str) -> list[str]:
    return [piece for piece in _CLAUSE.split(sentence) if units(piece)]


@lru_cache(maxsize=16384)
def negated(text: str) -> bool:
    return _NEGATION.search(text) is not None


@lru_cache(maxsize=16384)
def value_of(sentence: str) -> str:
    """Return what follows the last copula ('red' in 'the colour is red'), or nothing."""
    copulas = list(_COPULA.finditer(sentence))
    return sentence[copulas[-1].end() :] if copulas else ""


def refuses(sentence: str) -> bool:
    return _REFUSAL.search(sentence) is not None


def is_refusal(text: str) -> bool:
    """Tell whether a text says nothing but that it cannot say."""
    saying = [sentence for sentence in sentences(text) if units(sentence) or refuses(sentence)]
    return bool(saying) and all(refuses(sentence) for sentence in saying)


@lru_cache(maxsize=1024)
def parts(question: str) -> tuple[frozenset[str], ...]:
    """Return the units of each thing a question asks; a part of one unit joins its neighbour."""
    groups: list[frozenset[str]] = []
    for piece in _PARTS.split(question):
        part = units(piece)
        if groups and (len(part) < 2 or len(groups[-1]) < 2):
            groups[-1] |= part
        elif part:
            groups.append(part)
    return tuple(groups)


def overlap(part: frozenset[str], sentence: str) -> float:
    """Return the share of the units `part` that `sentence` has, 0 to 1."""
    return len(part & units(sentence)) / len(part) if part else 0.0


def relevant(parts_asked: tuple[frozenset[str], ...], sentence: str) -> bool:
    """Tell whether `sentence` bears on some of `parts_asked`: it has two of its units, or all if there are fewer."""
    content = units(sentence)
    return any(part and len(part & content) >= min(2, len(part)) for part in parts_asked)
