"""Text without its dress: what models and editors put around and inside a mark, undone once, before it is read."""

import html
import re
import unicodedata

_INVISIBLE = [0xAD, 0x200B, 0x200C, 0x200D, 0x200E, 0x200F, 0x2060, 0xFE0E, 0xFE0F, 0xFEFF, 0x20E3]
_INVISIBLE += [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_PLAIN: dict[int, str | None] = {
    **dict.fromkeys(_INVISIBLE),
    **{ord(sign): "[" for sign in "【〔〖「『〈"},
    **{ord(sign): "]" for sign in "】〕〗」』〉"},
    **{ord(sign): "[[" for sign in "⟦〚"},
    **{ord(sign): "]]" for sign in "⟧〛"},
    **{ord(sign): "<" for sign in "«《"},
    **{ord(sign): ">" for sign in "»》"},
    **{ord(sign): "-" for sign in "‐‑‒–—―−"},
    **{ord(sign): '"' for sign in "“”„‟"},
    **{ord(sign): "'" for sign in "‘’‚‛"},
    **{ord(sign): f" {unicodedata.normalize('NFKC', sign).replace(chr(0x2044), '/')}" for sign in "¼½¾⅓⅔⅕⅖⅗⅘⅛⅜⅝⅞"},
    **{ord(sign): f"^{unicodedata.digit(sign)}" for sign in "⁰¹²³⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉"},  # a footnote's number is no digit
    **{0x2160 + n: str(n + 1) for n in range(12)},  # Roman numerals that are characters of their own
    **{0x2170 + n: str(n + 1) for n in range(12)},
    **{start + n: str(n + 1) for start in (0x2776, 0x2780, 0x278A) for n in range(10)},  # digits in circles
    ord("🔟"): "10",
    ord("⁄"): "/",
}
_OTHER_DIGIT = re.compile(r"[^\D0-9]")
_ESCAPED = re.compile(r"\\([\[\](){}<>$*_`~#|/!.%-])")
_SPACED_BRACKETS = re.compile(r"(?<=[\[\]])[^\S\n]{1,2}(?=[\[\]])")
_FRACTION = re.compile(r"\\[dt]?frac\s?\{([^{}]{1,40})\}\s?\{([^{}]{1,40})\}")
_LATEX = re.compile(r"\\(?:text|textbf|textit|mathbf|mathrm|mathit|bf|emph|underline)\s?\{([^{}]{0,200})\}")
_BOXED = re.compile(r"\\f?boxed\s?\{([^{}]{0,200})\}")
_SIZED = re.compile(r"\\(?:left|right|big|Big)(?![a-z])\s?|\\[,;:! ]")
_DOUBLE = re.compile(
    r"<{2,3}(?P<angle>[^<>\n]{1,60})>{2,3}|\({2,3}(?P<round>[^()\n]{1,60})\){2,3}|\{{2,3}(?P<curly>[^{}\n]{1,60})\}{2,3}"
)


def undress(text: str) -> str:
    """Return the text with compatibility characters, escapes and LaTeX undone, emphasis removed, and every kind of
    double bracket as `[[…]]`.

    Superscripts stay apart from digits, and a vulgar fraction from the number before it.
    """
    if "&" in text:
        text = html.unescape(text)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.translate(_PLAIN)).translate(_PLAIN)
        text = _OTHER_DIGIT.sub(lambda digit: str(unicodedata.decimal(digit[0])), text)
    if "\\" in text:
        text = _FRACTION.sub(r"\1/\2", _SIZED.sub("", text))
        text = _BOXED.sub(r"[[\1]]", _LATEX.sub(r"\1", _LATEX.sub(r"\1", text)))
        text = _ESCAPED.sub(r"\1", text)
    text = text.replace("**", "").replace("__", "").replace("`", "").replace("$", "")
    text = _DOUBLE.sub(lambda double: f"[[{double['angle'] or double['round'] or double['curly']}]]", text)
    return _SPACED_BRACKETS.sub("", text)


def words_of(text: str) -> str:
    """Return an undressed text's words in lower case, with single spaces and no signs."""
    return " ".join(re.sub(r"[\W_]+", " ", text).split()).casefold()


def short(text: str) -> str:
    """Return the text in one line of at most 60 characters."""
    line = " ".join(text[:400].split())
    return line if len(line) <= 60 else f"{line[:59]}…"
