"""Text of anyone's on a terminal: what drives it or hides is shown, all that people write stays as it is."""

import ast
import io
import json
import logging
import unicodedata
from pathlib import Path

import pytest

from lrq.domain.logs import format_logs
from lrq.domain.printable import one_line, printable, printable_json

PACKAGE = Path(__file__).parents[2] / "lrq"


@pytest.mark.parametrize(
    "text",
    [
        "plain\n\twith a tab",
        "港口日志：十二月三日，风向东北。",
        "naïve, Ångström, ﷽, नमस्ते, สวัสดี",
        "👩🏽‍💻 ❤️‍🔥 1️⃣ 🇨🇳",
        "می‌خواهم",  # Persian, with a joiner that its spelling wants
        "क्‍ष",
        "葛\ufe00",
    ],
)
def test_what_people_write_stays(text: str) -> None:
    """Chinese, emoji of several parts, and joiners where a script has them."""
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", "␛[2J␛]0;title␇"),
        ("\x9b31m", "�31m"),
        ("a\rb\r\nc", "a␍b\nc"),
        ("\x7f\x08", "␡␈"),
        ("pay \u202e100\u202c", "pay �100�"),
        ("\u2066a\u2069\u200f", "�a��"),
        ("".join(chr(0xE0000 + ord(one)) for one in "hi"), "��"),
        ("pass\u200bword\u00ad, pay\u200dpal", "pass�word�, pay�pal"),
        ("x" + "\ufe01\ufe02", "x\ufe01�"),
        ("x\U000e0101\U000e0102", "x��"),
        ("\ufeff\u3164", "��"),
        ("\ud800", "�"),
        ("one\u2028two\x85three", "one\ntwo\nthree"),
    ],
)
def test_what_drives_a_terminal_or_hides_is_shown(text: str, shown: str) -> None:
    """Escapes, C1 controls, bidi overrides, tags, blanks of no width, selectors in rows, halves of characters."""
    assert printable(text) == shown


def test_no_control_and_no_format_character_passes() -> None:
    """Of all of Unicode, each alone between letters, but line ends, tabs and the signs that are seen."""
    seen = {0x600, 0x601, 0x602, 0x603, 0x604, 0x605, 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
    for code in {*range(0x110000)} - {0x9, 0xA} - seen - set(range(0x13430, 0x13440)):
        if unicodedata.category(chr(code)) in {"Cc", "Cf", "Cs", "Zl", "Zp"}:
            assert chr(code) not in printable(f"a{chr(code)}b"), hex(code)


def test_a_single_line_stays_one() -> None:
    """What is quoted in a line cannot begin another."""
    assert one_line("a\r\nok    judge: fine\u2028b\x1b") == "a ok judge: fine b␛"


def test_json_is_exact_and_printable() -> None:
    """It reads as the same value, and holds nothing that is not seen."""
    value = {"a\x9b": ["\x1b[0m\n", "\u202e", "\U000e0041", "👩🏽‍💻", "\x7f"], "1": 2}
    for indent in (False, True):
        text = printable_json(value, indent=indent)
        assert json.loads(text) == value
        assert printable(text) == text


def _calls(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def _is_printed_elsewhere(call: ast.Call) -> bool:
    """Whether a call prints by itself: a constant may, and what has been made printable."""
    name = ast.unparse(call.func)
    if name in {"click.echo", "click.secho", "click.style", "click.prompt", "click.confirm", "Console", "rich.print"}:
        return True
    if name in {"sys.stdout.write", "sys.stderr.write", "rich.console.Console", "pprint"}:
        return True
    return name == "print" and not all(isinstance(one, ast.Constant) or _is_printable(one) for one in call.args)


def _is_printable(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and ast.unparse(value.func) in {"printable", "printable_json"}


def test_nothing_else_prints() -> None:
    """One module writes to terminals; whoever needs it elsewhere takes `echo` or `console` from there."""
    files = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "cli" / "terminal.py"]
    found = [
        f"{path.relative_to(PACKAGE)}:{call.lineno}: {ast.unparse(call)[:60]}"
        for path in files
        for call in _calls(ast.parse(path.read_text(encoding="utf-8")))
        if _is_printed_elsewhere(call)
    ]
    assert found == []
    assert len(files) > 200


def test_log_lines_are_printable() -> None:
    """Also those of an exception, whose text quotes what it failed on."""
    stream = io.StringIO()
    logger = logging.Logger("apart")
    logger.addHandler(logging.StreamHandler(stream))
    format_logs(logger, as_json=False)
    try:
        raise ValueError("\x1b[2J\u202e")
    except ValueError:
        logger.exception("it said %s", "\x9b1m\x07")
    lines = stream.getvalue()
    assert printable(lines) == lines
    assert "ERROR apart: it said �1m␇\nTraceback" in lines
    assert lines.endswith("ValueError: ␛[2J�\n")
