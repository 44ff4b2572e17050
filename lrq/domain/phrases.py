"""What judges say instead of a list: that there is nothing, in many wordings; refusals, notices and error texts."""

import re

from lrq.domain.dress import undress, words_of

_PART = r"(?:(?:this|the|that) )?(?:part|document part|document|text|passage|section|excerpt)(?: of the document)?"
_INFORMATION = r"(?:information|info|content|points?|facts?|details?)"
_RELEVANT = r"(?:relevant|related|pertinent)"
_TO_QUESTION = r"(?: (?:to|on|about|for|regarding|relevant to|related to) (?:this|the) question)"
_NOTHING = re.compile(
    r"(?:(?:there (?:is|are|was|were|s)"
    rf"|(?:{_PART}|it) (?:contains|has|holds|provides|includes|offers|gives)|i (?:found|find)) )?"
    rf"(?:no {_RELEVANT} {_INFORMATION}|no {_INFORMATION} {_RELEVANT}{_TO_QUESTION}?"
    r"|nothing relevant|nothing of relevance)"
    r"(?: (?:is|are|was|were))?(?: (?:available|found|present|given|provided|contained|mentioned|here))?"
    rf"(?: (?:in|from|within) {_PART})?{_TO_QUESTION}?"
    rf"|(?:{_PART}|it) (?:does not|doesn t) (?:contain|have|hold|provide|include|mention|offer)"
    rf"(?: (?:any|{_RELEVANT})){{1,2}} {_INFORMATION}(?: {_RELEVANT})?{_TO_QUESTION}?"
    r"|none found|nothing found|nothing|relevant information none"
    # A place, a denial, perhaps "with the question", "related", "information": 该部分没有与问题有关的内容.
    r"|(?:(?:该|此|本|这一?|文档的?)(?:部分|文档部分|文档|段|段落|文|文本)|文档|文中|其)?(?:中|里|内)?(?:并|均|都)?"
    r"(?:没有|沒有|无|無|未|不)(?:找到|发现|提及|提到|包含|含|含有|涉及|提供)?(?:有)?"
    r"(?:任何)?(?:与|和)?(?:该|此|本|这个)?(?:问题|問題)?(?:直接)?(?:相关|相關|有关|有關)"
    r"(?:的|性)?(?:任何)?(?:信息|信息点|内容|资料|資訊|資料|要点)?"
    r"|관련 ?(?:된 )?정보(?:가|는)? ?(?:없음|없습니다)|関連(?:する)?情報(?:は|が)?(?:なし|ありません|見つかりません)"
    r"|(?:il n y a )?aucune information pertinente|keine relevanten informationen"
    r"|(?:sin|no hay|ninguna) información relevante|nessuna informazione (?:rilevante|pertinente)"
    r"|нет (?:релевантной|соответствующей) информации"
)
_LABEL = re.compile(
    r"\W{0,6}(?:key points?|points?|answer|result|output|要点|结果|答案|回答)\W{0,3}[:：]\W{0,3}", re.IGNORECASE
)
_REMARK = re.compile(r"\([^()]{0,300}\)\W{0,4}$")

_CANNOT = r"(?:can(?:['’]t|not| not)|won['’]t|could not|couldn['’]t|do not|don['’]t) (?:be able to )?"
_HELP = r"(?:assist|help|process|provide|comply|fulfil|answer|discuss|continue)"
_NOTICE = re.compile(
    r"\b(?:i(?:['’]m| am)|we(?:['’]re| are)) (?:very |so |truly )?(?:sorry|unable|not able|afraid i can)"
    r"|^\W*(?:sorry|unfortunately)\W{1,3}(?:but )?(?:i|we|this|an?)\b|\bi (?:must )?(?:apologi[sz]e|decline)\b"
    rf"|\bi {_CANNOT}(?:{_HELP}|extract|read|see|access|find|share|support)|\bas an ai\b"
    r"|^\W*(?:internal (?:server )?)?error(?:s| code)?\b\W|\"?error\"?\s?:"
    r"|\b(?:flagged|filtered|blocked|rejected) (?:as|by|due)|\bplease (?:provide|paste|upload|rephrase|try)"
    r"|\busage polic|\bservice unavailable\b|\btimed? ?out\b"
    r"|抱歉|对不起|不好意思|作为(?:一个|一名)?(?:AI|人工智能)?(?:语言)?(?:模型|助手)|系统检测到"
    r"|无法(?:协助|处理|回答|提供)|(?:该|此)?内容(?:可能)?(?:包含|涉及).{0,6}(?:敏感|不安全|违规)",
    re.IGNORECASE,
)
_NOTICE_FIRST = re.compile(
    r"\W{0,9}(?:(?:i(?:['’]m| am) |we(?:['’]re| are) )?(?:very |so )?sorry\W{1,3}(?:but )?)?"
    rf"(?:i|we) (?:{_CANNOT}|(?:am|are) (?:unable|not able) to ){_HELP}"
    r"|\W{0,9}(?:很|非常)?(?:抱歉|对不起)[，,].{0,10}(?:无法|不能)"
    r"|\W{0,9}(?:internal |upstream |server ){0,3}error(?: code)?\s?[:0-9]",
    re.IGNORECASE,
)


def says_nothing(line: str) -> bool:
    """Say whether a line is the agreed phrase for nothing, in other words, with a label or a remark in brackets."""
    text = undress(line[:400])
    text = text[label.end() :] if (label := _LABEL.match(text)) else text
    text = _REMARK.sub("", text).strip() or text
    if text.strip(" *\"'[]().") == "None":
        return text.strip() == "None."  # without its full stop it is a program's empty value
    return _NOTHING.fullmatch(words_of(text)) is not None


def is_notice(text: str) -> bool:
    """Say whether a text, which may introduce a list, holds a refusal, a filter's notice or an error text."""
    return _NOTICE.search(text) is not None


def begins_notice(line: str) -> bool:
    """Say whether a line or a point begins as a refusal or an error text does; quoted ones go on otherwise."""
    return _NOTICE_FIRST.match(line) is not None
