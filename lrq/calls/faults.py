"""Whose fault a failure is, by tables of what servers write: the request's, the account's, a rate's, the server's.

The tables are looked through in the order that `fault` gives for a status; the first that matches decides, and where
none does, the status. What they search is `ErrorBody.searchable`: lower case, no URLs, `_` and `-` as spaces.
"""

import re
from collections.abc import Sequence
from typing import Literal

from lrq.calls.errors import ErrorBody

# "denied": it may be this request that is refused, or everyone's: how the endpoint answers others decides.
Fault = Literal["refused", "account", "throttled", "failed", "denied"]


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns))


# Somebody has closed the account: said with any status, and with words of any kind beside it.
_CLOSED = _any(
    r"\b(?:account|organi[sz]ation|project|user|team|key|subscription|workspace)\b[^.|]{0,60}?\b(?:suspend|deactivat"
    r"|disabled|banned|blocked|terminat|restricted|not active|inactive|overdue|locked|expired|frozen|closed"
    r"|in arrears)",
    r"service has been paused|账户[^。]{0,10}(?:冻结|停用|封禁|锁定)",
)

# Nothing is left: no other words, of a rate or a resource, make it pass with time.
_SPENT = _any(
    r"insufficient (?:\w+ ){0,3}(?:balance|credits?|funds?)|\b(?:no|out of|zero) (?:\w+ )?credits?\b",
    r"(?:used (?:up )?all|used up|spent all) (?:\w+ ){0,3}credits|credits? (?:\w+ ){0,2}(?:exhausted|depleted|used up"
    r"|expired)|not enough (?:balance|credits?|points|funds)",
    r"(?:reached|exceeded|hit) (?:\w+ ){0,4}(?:spend|spending|monthly|weekly|budget|credit) (?:\w+ )?(?:limit|cap)\b",
    r"trial (?:\w+ ){0,3}(?:expired|ended|over|exhausted|used up)|credit card|payment (?:instrument|method) must",
    r"(?:run|ran) out of (?:\w+ )?(?:tokens|credits?|funds?|quota)|余额(?:不足|已用)|欠费",
)
_MONEY = _any(
    r"insufficient (?:\w+ ){0,3}quota",
    r"balance (?:is |was )?(?:too low|insufficient|not enough|exhausted|negative)|account balance|credit balance",
    r"(?:not enough|more|add|buy|purchase|any|lacks?|included) (?:\w+ )?credits\b",
    r"can only afford|payment (?:required|method)|prepaid|top up|topup|recharge|pay (?:past|outstanding)",
    r"daily (?:\w+ ){0,2}(?:limit|quota)|key limit exceeded|quota for subscription|upgrade (?:to|your) (?:\w+ )?"
    r"(?:pro|plus|plan|subscription)\b",
    r"blocked api access|spend(?:ing)? alert|quota (?:\w+ )?not enough|total (?:request )?limit (?:reached|exceeded)",
    r"\bbilling\b|arrear|overdue|unpaid|past due",
    r"budget (?:\w+ ){0,3}exceeded|exceeded (?:\w+ )*budget|over (?:the |its )?budget|max budget",
    r"(?:spend|spending|usage|consumption|inference) limits?\b|monthly|credit limit|hard limit",
    r"quota (?:\w+ ){0,2}(?:exhausted|exceeded|reached|used up|insufficient)|out of (?:\w+ ){0,3}quota|no quota",
    r"exceeded (?:your|the|its|current) (?:\w+ )*quota|free allocated quota|free ?tier ?only|resource ?pack ?exhausted",
    r"(?:/|per|a) month\b|unpurchased|purchase",
    r"guthaben|kontingent|solde insuffisant|crédits? (?:insuffisant|épuisé)|quota (?:dépassé|épuisé)|saldo insuficiente"
    r"|crédito insuficiente|残高|クレジット|잔액|크레딧|недостаточно средств",
    r"余额|欠费|额度|充值|资源包|套餐",
)

_KEY = _any(
    r"(?:invalid|incorrect|missing|wrong|expired|revoked|malformed|unknown|no|bad) (?:\w+ ){0,3}?(?:api ?key|x api key"
    r"|access ?token|auth\w{0,20} ?token|bearer|security token|proxy server token|credentials?|subscription key"
    r"|app ?id)",
    r"(?:api|access|subscription|virtual|secret) ?key (?:\w+ ){0,3}(?:not valid|invalid|expired|missing|not found"
    r"|revoked|disabled|required|incorrect)|token (?:\w+ ){0,8}(?:is invalid|expired|no longer valid)",
    r"unauthori[sz]ed|unauthenticated|unrecognized client|invalid signature|no auth\b",
    r"signature[^.|]{0,40} does ?not match",
    r"(?:authentication|authorization) (?:failed|error|required|fail)|not authenticated|invalid authentication",
    r"user not found|no cookie auth|无效的?(?:令牌|密钥|api)|(?:令牌|密钥)[^。]{0,10}(?:过期|无效)",
)

# The account may not have what it asks for, whatever it asks.
_BARRED = _any(
    r"(?:location|country|region|territory)[^.|]{0,30} not (?:supported|available|allowed)|unsupported country",
    r"service disabled|has not been used in project|must be verified|accept the (?:terms|license|agreement)",
    r"virtual network|firewall|\bip\b (?:\w+ )?(?:is )?not (?:allowed|authorized|whitelisted)",
)

_TOO_LARGE = _any(
    r"(?:request|prompt|input|message|payload|entity|content|body)s? (?:\w+ ){0,3}?(?:is |are |was |were )?too "
    r"(?:large|long|big)|too (?:large|long|big) (?:for|a) ",
    r"(?:maximum|max|model'?s?) context|context (?:length|window|size)|max model len|string too long|above max length",
    r"(?:longer|larger|greater|more|bigger) than (?:\w+ ){0,6}(?:allow|permit|limit|maximum|support|max |context)",
    r"(?:exceed|over|beyond|above)\w{0,4} (?:\w+ ){0,4}(?:max\w{0,8}|limit) (?:\w+ ){0,3}(?:length|size|tokens?)"
    r"(?! per)|reduce (?:the |your )?(?:length|prompt|input|message)|input or output tokens must be reduced",
    r"(?:length|size|tokens?)\b[^.|]{0,60}\bexceed\w{0,4} (?:the )?(?:max|model|limit|allowed|context|token limit)",
    r"exceeds (?:the |your )?(?:\w+(?:'s)? ){0,2}(?:limit|maximum) of [\d,.]+ ?k? ?(?:input |prompt )?tokens\b(?! per)",
    r"range of input length|max(?:imum)? (?:\w+ )?length"
    r"|too many (?:input |prompt )?tokens in|prompt is too|\btoo long\b",
    r"exceed\w{0,4} model token limit|过长|超长|上下文长度|超[过出][^。]{0,20}长度|长度超[过出]",
)
_TOO_LARGE_FOR_RATE = _any(  # with 429: the words of a single request, never those of a minute's sum
    r"(?:request|prompt|input|message|payload)s? (?:\w+ ){0,3}?(?:is |are )?too (?:large|long|big)",
    r"too (?:large|long|big) for|always too|input or output tokens must be reduced|larger than the (?:\w+ ){0,3}limit",
    r"(?:tokens|size|length) (?:of|in) (?:the|your|this) (?:request|prompt|input)[^.|]{0,40}exceed",
    r"\bper (?:request|batch)\b|single request (?:\w+ ){0,4}exceed",
    r"request (?:itself )?exceeds (?:\w+ ){0,4}(?:context|maximum)",
)
_LIMIT_AND_REQUEST = re.compile(r"limit:? (\d[\d,]*)[,;.]? (?:used:? \d[\d,]*[,;.]? )?requested:? (\d[\d,]*)")

_CONTENT = _any(
    r"content (?:\w+ )?(?:filter|management|policy|moderation)|moderation|flagged|responsible ?ai|safety",
    r"prohibited|inappropriate|usage (?:guidelines|polic)|policy violation|violat\w+ (?:\w+ ){0,4}(?:polic|guideline"
    r"|terms|rules)|invalid prompt|sensitive|harmful|unsafe|recitation|data ?inspection|blocked by",
    r"content exists risk|(?:high|security) risk|敏感|违规|不安全|不适当|审核|风险",
)

_DAILY = _any(
    r"monthly|(?:per|by) ?day|/ ?day\b|a day\b|per 86400|daily|\bdays?\b[^.|]{0,10}(?:limit|quota)|per ?month"
    r"|当日|今日|本日|每日|每天|单日|本月|每月"
)
_SLIDING = _any(r"\b[rt]pd\b")  # a day's limit that gives a little back all the time, and says when
_RATE = _any(
    r"rate ?limit|rate quota|rate (?:is )?exceeded|too many (?:concurrent |parallel )?(?:requests|tokens|calls)",
    r"(?:per|/|a|each|every) ?(?:min\b|minute|sec\b|second|hour)|\b(?:rpm|tpm|rps|tps|qps|qpm|itpm|otpm|ipm)\b",
    r"throttl|burst|concurren|parallel request|overload|slow ?down|at capacity|capacity (?:exceeded|limit)",
    r"(?:retry|try again) (?:in|after) (?:about )?\d|allocated quota exceeded|requests? limit (?:reached|exceeded)"
    r"|limit requests|reached max request|crossed tpm|resource (?:has been )?exhausted|quota metric|server is busy",
    r"(?:pro|par|por) minut|zu viele anfragen|trop de requêtes|demasiadas solicitudes|リクエスト数|1分|分あたり",
    r"频率|限流|并发|速率|过于频繁|过载|繁忙|稍后",
)
_RATE_ANYWHERE = _any(  # with a status that is not 429
    r"rate ?limit ?(?:exceeded|error|reached|ed\b)|throttl|too many (?:concurrent )?requests|\bqps\b",
    r"request ?limit ?exceeded|限流|过于频繁|频率限制",
)

_ELSEWHERE = _any(  # a model or a path that is not there, a right that is missing: everyone's, unless others pass
    r"permission|access (?:\w+ )?denied|not authorized|forbidden|does ?n[o']t have access|do not have access",
    r"(?:model|deployment|endpoint|engine)\b[^.|]{0,80}\b(?:not found|not exist|n't exist|not available|not supported"
    r"|unavailable)|(?:no such|unknown|invalid|unsupported|unable to access|nonexistent) (?:model|deployment|engine)",
    r"not found|no endpoints|model not|invalid url",
)

# Zhipu's and MiniMax's numbers, which stand without words that would tell.
_CODES: dict[Fault, frozenset[str]] = {
    "account": frozenset(
        ("1004", "1008", "1110", "1111", "1112", "1113", "1121", "1304", "1308", "1309", "1310", "2049")
    ),
    "throttled": frozenset(("1002", "1039", "1302", "1303", "1305", "1312")),
    "refused": frozenset(("1026", "1027", "1261", "1301")),
}
_Table = tuple[Fault, re.Pattern[str]]
_PAYING: Sequence[_Table] = (("account", _CLOSED), ("account", _SPENT), ("account", _MONEY))
_OF_4XX: Sequence[_Table] = (
    ("account", _CLOSED),
    ("refused", _TOO_LARGE),
    ("refused", _CONTENT),
    ("account", _SPENT),
    ("throttled", _RATE_ANYWHERE),
    ("account", _MONEY),
    ("account", _KEY),
    ("account", _BARRED),
    ("denied", _ELSEWHERE),
)
_OF_429: Sequence[_Table] = (
    ("account", _CLOSED),
    ("refused", _TOO_LARGE_FOR_RATE),
    ("account", _SPENT),
    ("throttled", _SLIDING),
    ("account", _DAILY),
    ("throttled", _RATE),
    ("account", _MONEY),
    ("account", _KEY),
)
_TOO_LONG_FOR_MODEL: Sequence[_Table] = (
    ("refused", _any(r"(?:maximum|available) context|context (?:length|size)|prompt is too long")),
)

_ACCOUNT = {401, 402, 407}  # whatever is said
_DENIED = {400, 403, 404, 405, 406, 410, 412}  # unless words tell more
_LONGEST_WAIT = 3600.0  # seconds that a sliding limit of a day may ask for, beyond which nobody waits
_PASSING = {408, 409, 423, 424, 425, 498, 499}  # 4xx that may go well another time; Groq's for its flexible tier
_GATEWAYS = {502, 503, 504}  # what they say is not the model's


def fault(status: int, error: ErrorBody) -> Fault:
    """Decide whose fault an error is.

    Args:
        status: of HTTP, or the one that a reply of 200 names in its `error`; 0 where it names none.
        error: its words and codes, which go before the status except for 401, 402, 407 and 3xx.
    """
    text = error.searchable
    status = 429 if status == 420 else status  # of servers older than 429
    if status in _ACCOUNT or 300 <= status < 400:
        return "account"
    if status == 429 and _asks_beyond_limit(text):
        return "refused"
    by_code = next((kind for kind, codes in _CODES.items() if error.codes & codes), None)
    by_words = by_code or next((kind for kind, pattern in _tables(status) if pattern.search(text)), None)
    if by_words:
        waits_for_hours = (error.retry_after or 0.0) > _LONGEST_WAIT and _SLIDING.search(text)
        return "account" if by_words == "throttled" and waits_for_hours else by_words
    if status == 429:
        return "throttled"
    if not 400 <= status < 500 or status in _PASSING:
        return "failed"
    return "denied" if status in _DENIED else "refused"


def _tables(status: int) -> Sequence[_Table]:
    if status == 429:
        return _OF_429
    if status >= 500:
        return () if status in _GATEWAYS else (*_PAYING, *_TOO_LONG_FOR_MODEL) if status == 500 else _PAYING
    return _OF_4XX


def _asks_beyond_limit(searchable: str) -> bool:
    """Say whether a request alone is above the limit: no waiting helps it."""
    numbers = _LIMIT_AND_REQUEST.search(searchable)
    return numbers is not None and int(numbers[2].replace(",", "")) > int(numbers[1].replace(",", ""))
