"""Reading an extraction: a list of points, or the agreed phrase for nothing. Anything else is none."""

import re

from lrq.domain.dress import short, undress, words_of
from lrq.domain.errors import Unreadable
from lrq.domain.thoughts import LONGEST_REPLY, split_thoughts

NOTHING_RELEVANT = "No relevant information"

_BULLET = re.compile(
    r"[>\s]{0,20}(?:[-*+](?=\s)|-(?=[^\W\d_])|[•●○◦▪▫■□◆◇‣⁃∙·・►▶➢➤✓✔➔→*]\s?|[(\[]?[0-9]{1,3}[.)\]、:](?![0-9])"
    r"|[(]?[a-zA-Z][)]\s|[（(]?[一二三四五六七八九十]{1,3}[、.)）])\s?(?P<text>.*)"
)
_ROW = re.compile(r"\s{0,20}\|(?P<text>.*)")
_RULE = re.compile(r"[\s|:+=-]+")
_FENCE = re.compile(r"\s{0,20}```\w{0,20}\s*")
_ANSWER_TAG = re.compile(r"</?(?:answer|output|response|result|final|points|extraction)>", re.IGNORECASE)
_HEADING = re.compile(r"\W{0,6}(?:points?|key points|extracted points|answer|result|output|要点|提取要点|结果|答案)\W{0,6}", re.IGNORECASE)
_SHELLS = {"", "none", "null", "nil", "n a", "na", "nan", "undefined", "empty", "ok", "无", "true", "false", "todo"}

_NOTHING = re.compile(
    r"(?:(?:there (?:is|are|was|were)|(?:this|the) (?:part|document part|document|text|passage|section|excerpt)(?: of the document)?"
    r" (?:contains|has|holds|provides|includes|offers|gives)|it (?:contains|has|holds)|i (?:found|find)) )?"
    r"(?:no (?:relevant|related|pertinent) (?:information|info|content|points?|facts?|details?)|nothing relevant|nothing of relevance)"
    r"(?: (?:is|are|was|were))?(?: (?:available|found|present|given|provided|contained|mentioned|here))?"
    r"(?: (?:in|from|within) (?:this|the|that) (?:part|document part|document|text|passage|section|excerpt)(?: of the document)?)?"
    r"(?: (?:to|on|about|for|regarding|relevant to) (?:this|the) question)?"
    r"|none found|nothing found|nothing"
    # 没有与问题相关的信息 and its kin: denial, the question perhaps, "related", "information".
    r"|(?:(?:该|此|本|这一?)(?:部分|文档部分|段|文档|段落)|文档|文中|其)?(?:中|里)?(?:并)?(?:没有|沒有|无|無|未找到|未发现|未提及|未包含|不包含|不含|未涉及|没有提到|没有找到)"
    r"(?:任何)?(?:与|和)?(?:该|此|本|这个)?(?:问题|問題)?(?:直接)?(?:相关|相關|有关|有關)的?(?:信息|信息点|内容|資訊|資料|要点|資料)?"
    r"|관련 ?(?:된 )?정보(?:가|는)? ?(?:없음|없습니다)|関連(?:する)?情報(?:は)?(?:なし|ありません)"
)
# A refusal, a filter's notice or an error text: not an introduction to a list, nor a point of one.
_NOTICE = re.compile(
    r"\b(?:i(?:['’]m| am)|we(?:['’]re| are)) (?:very |so |truly )?(?:sorry|unable|not able|afraid i can)"
    r"|^\W*(?:sorry|unfortunately)\b|\bi (?:must )?(?:apologi[sz]e|decline)\b"
    r"|\bi (?:can(?:['’]t|not| not)|won['’]t|could not|couldn['’]t|do not|don['’]t) (?:be able to )?"
    r"(?:assist|help|process|provide|comply|fulfil|answer|discuss|continue|extract|read|see|access|find|share|support)"
    r"|\bas an ai\b|^\W*(?:internal (?:server )?)?error(?:s| code)?\b\W|\"?error\"?\s?:|\b(?:flagged|filtered|blocked|rejected) (?:as|by|due)"
    r"|\bplease (?:provide|paste|upload|rephrase|try)|\busage polic|\bservice unavailable\b|\btimed? ?out\b"
    r"|抱歉|对不起|不好意思|作为(?:一个|一名)?(?:AI|人工智能)?(?:语言)?(?:模型|助手)|系统检测到|无法(?:协助|处理|回答|提供)"
    r"|(?:该|此)?内容(?:可能)?(?:包含|涉及).{0,6}(?:敏感|不安全|违规)",
    re.IGNORECASE,
)
_REFUSING_POINT = re.compile(
    r"\W*(?:(?:i(?:['’]m| am) |we(?:['’]re| are) )?(?:very |so )?sorry\W{1,3}(?:but )?)?"
    r"(?:i|we) (?:can(?:['’]t|not| not)|won['’]t|am unable to|am not able to|are unable to) (?:be able to )?"
    r"(?:assist|help|process|provide|comply|fulfil|answer|discuss|continue)|\W*(?:很|非常)?(?:抱歉|对不起)[，,].{0,10}(?:无法|不能)",
    re.IGNORECASE,
)


def read_extraction(reply: str) -> str | None:
    """Return the points that were found, as they stand; None for the agreed phrase, in whatever dress.

    A point is an item of a list: bullets, numbers, rows of a table. A refusal, a notice, an error text, an empty
    shell or mere prose is no extraction.
    """
    if len(reply) > LONGEST_REPLY:
        raise Unreadable(f"the reply has {len(reply)} characters, more than {LONGEST_REPLY}")
    parted = split_thoughts(reply)
    text = _ANSWER_TAG.sub("", parted.answer).strip()
    if not text:
        problem = "the reply is empty" if parted.closed and not parted.thought else "the reply holds thoughts alone"
        raise Unreadable(problem)
    lines = [line for line in text.splitlines() if line.strip() and not _FENCE.fullmatch(line)]
    items, before, says_nothing = _take_apart(lines)
    if items and not says_nothing and not _NOTICE.search(before) and not all(map(_REFUSING_POINT.match, items)):
        return "\n".join(line for line in text.splitlines() if not _FENCE.fullmatch(line)).strip()
    if says_nothing and not items:
        return None
    raise Unreadable(f"neither a list of points nor the words for none: {short(text)}")


def _take_apart(lines: list[str]) -> tuple[list[str], str, bool]:
    """The points, the text before the first of them, and whether the reply says that there is nothing."""
    items: list[str] = []
    before: list[str] = []
    nothing = nothing_listed = False
    rows = 0
    for line in lines:
        bullet, row = _BULLET.match(line), _ROW.match(line)
        rows = rows + 1 if row else 0
        item = bullet["text"] if bullet else row["text"] if row and rows > 2 and not _RULE.fullmatch(line) else None
        if item is not None and words_of(undress(item)) not in _SHELLS:
            nothing_listed = nothing_listed or _says_nothing(item)
            if not _says_nothing(item):
                items.append(item)
        elif item is None and not items and not row:
            before.append(line)
            nothing = nothing or _says_nothing(line)
        elif item is None:
            nothing = nothing or _says_nothing(line)
    if not items and nothing and not _is_nothing_alone(before):
        nothing = False
    return items, "\n".join(before), nothing or (nothing_listed and not items)


def _says_nothing(line: str) -> bool:
    words = undress(line)
    if words.strip(" *\"'[]().") == "None":
        return words.strip() == "None."  # without its full stop it is a program's empty value
    return _NOTHING.fullmatch(words_of(words)) is not None


def _is_nothing_alone(lines: list[str]) -> bool:
    """Whether the phrase stands first, under its heading at most, and what follows is only a remark on it."""
    stated = [line for line in lines if not _HEADING.fullmatch(line)]
    remarks = [line for line in stated if not _says_nothing(line)]
    return bool(stated) and _says_nothing(stated[0]) and all(line.strip()[0] in "(（" for line in remarks)
