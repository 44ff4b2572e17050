"""Numbers as judges write them in a mark: digits, fractions, words, with or without their scale."""

import re

_ENGLISH = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_ROMAN = ("", "", "ii", "iii", "iv", "", "vi", "vii", "viii", "ix")  # a single letter may be anything
_WORDS = {
    **{word: n for n, word in enumerate(_ENGLISH)},
    **{word: n for n, word in enumerate("零一二三四五六七八九十")},
    **{word: n for n, word in enumerate("零壹贰叁肆伍陆柒捌玖拾")},
    **{word: n for n, word in enumerate("〇壹貳參肆伍陸柒捌玖拾")},
    **{word: n for n, word in enumerate(_ROMAN) if len(word) > 1},
    "两": 2,
}
_WORD = "|".join(sorted(_WORDS, key=len, reverse=True))
_VALUE = (
    r"[0-9]{1,6} [0-9]/[0-9]{1,2}|(?:[0-9]{1,6}(?:\.[0-9]{1,3}|,[0-9]{1,2})?|\.[0-9]{1,3})\.?"
    rf"|(?:{_WORD})(?:(?:点| point )(?:{_WORD}))?"
)
_UNIT = r"(?:\s?(?:分|点|點|점|点数|points?|pts?\.?))?"
_NUMBER = re.compile(
    rf"(?P<value>{_VALUE}){_UNIT}"
    rf"(?:\s?\(?(?:/|of|out of|von|sur|из|満点|满分)\s?(?P<scale>{_VALUE}){_UNIT}\)?)?",
    re.IGNORECASE,
)
_LABEL = re.compile(r"(?P<label>[^\W\d_][^\d:=/\n]{0,40}?)\s?[:=]\s?")
_NOT_A_LABEL = re.compile(
    r"\b(?:max(?:imum)?|min(?:imum)?|scale|range|passages?|statements?|steps?|parts?|chunks?|sections?|pages?|lines?"
    r"|examples?|not|no|items?|categor(?:y|ies)|if)\b|文段|陈述|部分|满分|第|不",
    re.IGNORECASE,
)
_DRESS = " \t\n\"'*_;!,。、…"


def read_number(text: str, high: float) -> float | None:
    """Return the number that an undressed text is, whole; None if it is anything else.

    It may have a label before it ("Rating: 8"), a unit, and its scale after it ("8 / 10"), which must be `high`.
    """
    text = " ".join(text[:200].split()).strip(_DRESS)
    label = _LABEL.match(text)
    if label and not _NOT_A_LABEL.search(label["label"]):
        text = text[label.end() :].strip(_DRESS)
    number = _NUMBER.fullmatch(text)
    if number is None or (number["scale"] and _value(number["scale"]) != high):
        return None
    return _value(number["value"])


def _value(text: str) -> float:
    text = text.casefold()
    if text in _WORDS:
        return float(_WORDS[text])
    if parts := re.fullmatch(rf"({_WORD})(?:点| point )({_WORD})", text):
        return float(f"{_WORDS[parts[1]]}.{_WORDS[parts[2]]}")
    if parts := re.fullmatch(r"([0-9]+) ([0-9])/([0-9]+)", text):
        return int(parts[1]) + int(parts[2]) / int(parts[3]) if int(parts[3]) > int(parts[2]) else float("inf")
    integer, _, decimals = text.rstrip(".").replace(",", ".").partition(".")
    return float(f"{integer or 0}.{decimals or 0}")
