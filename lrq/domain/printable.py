"""Text of anyone's, made printable: what would drive a terminal, or hide in a line, is shown instead of obeyed."""

import json
import re
from typing import Any

import orjson

# All that Unicode calls a control or a format character, separators of lines, halves of characters, letters that are
# blank, and the selectors that can carry bytes unseen. Signs that are seen (Arabic's before a number) are left out.
_HIDDEN = (
    r"\x00-\x1f\x7f-\x9f\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    r"\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
# Joiners belong to emoji and to the scripts of Persia and India: they may stand between two characters beyond ASCII.
# One selector may stand behind a character: it makes an emoji, or another form of a Chinese character.
_BEYOND = rf"[^\x00-\x7f\ufe00-\ufe0f{_HIDDEN}]"
_BELONGS = rf"(?<={_BEYOND})\ufe0f?[\u200c\u200d](?={_BEYOND})|(?<=[^{_HIDDEN}\ufe00-\ufe0f])[\ufe00-\ufe0f]"
_UNPRINTABLE = re.compile(rf"{_BELONGS}|([\ufe00-\ufe0f{_HIDDEN}])")
_LINES = re.compile(r"\r\n|\u2028|\u2029|\x85")


def printable(text: str) -> str:
    """Return a text for terminals and logs: its lines and tabs stay, what would not be seen becomes a sign.

    Controls are shown as their pictures (␛ for escape), all else that is hidden as the replacement character.
    """
    if text.isascii() and text.isprintable():
        return text
    return _UNPRINTABLE.sub(_shown, _LINES.sub("\n", text))


def one_line(text: str) -> str:
    """Return a text for a single line: its line ends and runs of blanks are one space each."""
    return printable(" ".join(text.split()))


def printable_json(value: Any, *, indent: bool = False) -> str:
    """Return JSON that holds `value` exactly, hidden characters escaped; with `indent` over several lines."""
    option = orjson.OPT_NON_STR_KEYS | (orjson.OPT_INDENT_2 if indent else 0)
    return _UNPRINTABLE.sub(_escaped, orjson.dumps(value, option=option).decode())


def _shown(match: re.Match[str]) -> str:
    character = match[1]
    if character is None or character in "\n\t":
        return match[0]
    code = ord(character)
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"


def _escaped(match: re.Match[str]) -> str:
    character = match[1]
    return match[0] if character is None or character == "\n" else json.dumps(character)[1:-1]
