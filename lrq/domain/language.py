"""Which of our two prompt languages fits a text."""

import re
from typing import Literal

Language = Literal["en", "zh"]

_LATIN = re.compile(r"[A-Za-z]")
_CHINESE = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
LETTERS_PER_CHARACTER = 4  # a Chinese character says about as much as a short English word


def language(text: str) -> Language:
    """Return "en" where Latin letters outnumber Chinese characters at least four to one, else "zh".

    A Chinese question that names English products stays Chinese, an English one that quotes a Chinese term stays
    English. Text in neither script is asked about in English.
    """
    latin, chinese = len(_LATIN.findall(text)), len(_CHINESE.findall(text))
    return "en" if latin >= LETTERS_PER_CHARACTER * chinese else "zh"
