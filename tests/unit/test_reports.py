"""Figures of reports, by hand; and the viewer's modules as one script."""

import re

import pytest

from lrq.domain.agreement import wilson_interval
from lrq.domain.errors import UsageError
from lrq.reports.charts import histogram
from lrq.reports.item import missing_points
from lrq.reports.listing import Condition, Range, read_query
from lrq.view.file import bundle
from lrq.view.server import STATIC


def test_a_histogram_has_a_round_range() -> None:
    """Values between 0 and 10 are drawn from 0 to 10, others over what they span; none have no chart."""
    assert histogram([]) is None
    found = histogram([0.0, 10.0, 9.9, 5.0], bins=10)
    assert found is not None
    assert (found["low"], found["high"], found["counts"]) == (0.0, 10.0, [1, 0, 0, 0, 0, 1, 0, 0, 0, 2])
    assert found["quartiles"] == [3.75, 7.45, 9.925]
    flat = histogram([-3.0, -3.0])
    assert flat is not None
    assert (flat["low"], flat["high"]) == (-3.5, -2.5)


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("The cargo of Sirius is coal.", ["旗帜是挪威。"]),
        ("I cannot tell.", ["The cargo of Sirius is coal.", "旗帜是挪威。"]),
        ("旗帜是挪威", ["The cargo of Sirius is coal."]),
        ("SIRIUS carries coal as its cargo; 旗帜是挪威", []),
    ],
)
def test_points_without_a_word_are_missing(text: str, missing: list[str]) -> None:
    """By words of four letters, names, numbers, and pairs of Chinese characters."""
    assert missing_points(["The cargo of Sirius is coal.", "旗帜是挪威。"], text) == missing


def test_an_interval_of_a_share() -> None:
    """Wilson's for 8 of 10: (0.8 + 0.192) / 1.384 ∓ …, known as 0.49 to 0.943."""
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-3)
    assert wilson_interval(0, 5)[0] == 0.0
    assert wilson_interval(5, 5)[1] == 1.0


def test_a_query_of_the_page_is_read() -> None:
    """Bounds come as JSON; a page has 1 to 500 items."""
    query = read_query({"where": '[["margin", "<", 1]]', "ranges": '[["a", 1, 2]]', "limit": "9999", "offset": "-3"})
    assert query.conditions == (Condition(name="margin", operator="<", number=1.0),)
    assert query.ranges == (Range(name="a", low=1.0, high=2.0),)
    assert (query.limit, query.offset) == (500, 0)
    for wrong in ({"where": "{"}, {"where": "[1]"}, {"limit": "x"}, {"ranges": '[["a", "b", "c"]]'}):
        with pytest.raises(UsageError, match="cannot be read"):
            read_query(wrong)


def test_data_never_become_markup() -> None:
    """No module writes markup, evaluates text or asks another host."""
    for path in STATIC.glob("*.js"):
        text = path.read_text(encoding="utf-8")
        found = re.findall(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|https?://", text
        )
        assert found in ([], ["http://"]), path.name  # the name space of SVG


def test_the_modules_are_one_script() -> None:
    """Every module once, after those it imports, with no import or export left."""
    script = bundle()
    assert not re.search(r"^(import|export) ", script, re.MULTILINE)
    made = re.findall(r'^modules\["([\w.]+)"\] = ', script, re.MULTILINE)
    assert sorted(made) == sorted(path.name for path in STATIC.glob("*.js"))
    for name in made:
        scope = script.partition(f'modules["{name}"] = ')[2].partition("\n})();")[0]
        used = re.findall(r'= modules\["([\w.]+)"\];', scope)
        assert set(used) <= set(made[: made.index(name)])


def test_every_word_of_the_page_has_its_chinese() -> None:
    """What `t` is asked for with a plain text stands in strings.js."""
    known = (STATIC / "strings.js").read_text(encoding="utf-8")
    for path in STATIC.glob("*.js"):
        for words in re.findall(r'\bt\("([^"]+)"', path.read_text(encoding="utf-8")):
            assert f'"{words}": ' in known, (path.name, words)
