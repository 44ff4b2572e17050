"""What LongPO (arXiv 2502.13922) reads of a policy: questions it wrote, and answers that are fit to be trained on.

Both languages are read alike. The released scripts cut questions at any number, and refuse every Chinese answer.
"""

import re
from collections import Counter
from itertools import pairwise

_NUMBERED = re.compile(
    r"^[\s*#>_-]*+(?:question|问题|q)?\s*+([0-9０-９]{1,2})\s*+[*_]*+\s*+(?:[:：、)）]|[.．](?![0-9]))\s*+(.*\S)\s*$",
    re.IGNORECASE,
)
_DRESS = ' *_`"“”'
_CHINESE = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_WORD = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]|[^\W\d_]{3,}")
# How an assistant declines, at a reply's beginning: the same words within a quotation are none.
_REFUSAL = re.compile(
    r"(?:i(?:['’]m| am) (?:very |so |truly )?sorry|sorry\b|i apologi[sz]e|my apologies|i am unable|i(?:['’]m) unable"
    r"|i can(?:not|['’]t) (?:answer|assist|help|provide|find|fulfil)|as an? (?:ai|artificial intelligence)\b"
    r"|unfortunately, (?:i|the (?:text|document|passage))\b|there is no (?:text|document|context)"
    r"|(?:非常|很)?抱歉|对不起|作为(?:一个|一名)?(?:AI|人工智能)|我无法|我不能|很遗憾)",
    re.IGNORECASE,
)
FEWEST_WORDS = 2
LEAST_UNIT = 3  # repetitions of a unit that make a loop
LOOP_SHARE = 0.5  # of a text that a loop takes up


def read_questions(reply: str, count: int) -> list[str]:
    """Return the questions of a reply whose lines are numbered from 1 to `count`; empty where any is missing.

    A line is a question with its number: "1: …", "1. …", "1) …", "1：…", bold or not. Numbers inside a question stay.
    A question that goes on in a further line would be cut; what follows the last one behind a blank line is no part.
    """
    questions: list[str] = []
    is_behind_blank = False
    for line in reply.splitlines():
        match = _NUMBERED.match(line)
        if match is not None:
            text = match[2].strip(_DRESS)
            if int(match[1]) != len(questions) + 1 or not text:
                return []
            questions.append(text)
        elif line.strip() and questions and not (len(questions) == count and is_behind_blank):
            return []
        is_behind_blank = not line.strip() or (is_behind_blank and match is None)
    return questions if len(questions) == count else []


def unfit(answer: str, *, most_repeated: float = 0.95) -> str:
    """Return why an answer is not to be trained on; empty where it is.

    Args:
        most_repeated: share of words that may stand twice or more; 0.95 for a rejected answer, 0.9 for a chosen one.
    """
    words = _WORD.findall(answer)
    if len(words) < FEWEST_WORDS:
        return "empty"
    if _REFUSAL.match(answer.lstrip().lstrip(_DRESS)):  # its own words, which open it, and none that it quotes
        return "a refusal"
    # The share of words that occur twice or more; of Chinese, which has no spaces, of pairs of characters.
    if _CHINESE.match(words[0]):
        words = [a + b for a, b in pairwise(words)] or list(words)
    counts = Counter(word.casefold() for word in words)
    repeated = sum(count for count in counts.values() if count > 1) / len(words)
    return "a repetition" if repeated > most_repeated or is_loop(answer) else ""


def is_loop(text: str) -> bool:
    """Tell whether one unit, repeated three times or more in a row, takes up half of `text`, whatever its tail."""
    text = " ".join(text.split())
    middle = len(text) // 2  # stands in every stretch that takes up half
    return any(_loops(text, middle, unit) for unit in range(1, len(text) // LEAST_UNIT + 1))


def _loops(text: str, middle: int, unit: int) -> bool:
    starts = (start for start in (middle - 2 * unit, middle - unit, middle) if start >= 0)
    if not any(text[start : start + unit] == text[start + unit : start + 2 * unit] for start in starts):
        return False
    low = high = middle - unit if text[middle - unit : middle] == text[middle : middle + unit] else middle
    while low > 0 and text[low - 1] == text[low - 1 + unit]:
        low -= 1
    while high + unit < len(text) and text[high] == text[high + unit]:
        high += 1
    return high + unit - low >= max(LEAST_UNIT * unit, LOOP_SHARE * len(text))
