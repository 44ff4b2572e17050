"""The only place that prints: text of whatever origin is shown, and cannot drive the terminal; tables and figures."""

import re
import sys
from collections.abc import Iterable

import click
from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from lrq.domain.printable import printable, printable_json

# Whatever ends a line on a terminal or in an editor.
_LINE_ENDS = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")


def echo(
    text: object = "",
    *,
    lines: bool = False,
    err: bool = False,
    nl: bool = True,
    fg: str | None = None,
    bold: bool = False,
) -> None:
    """Print a text; what it holds of controls is shown.

    Args:
        lines: it has several, and what comes from elsewhere is quoted in it. Else its line ends are blanks, but for
            those that it begins with: a name that holds one would pass for a line of ours.
        err: on standard error.
        nl: end the line.
        fg: colour of the text, on a terminal.
    """
    shown = str(text)
    if not lines:
        body = shown.lstrip("\n")
        shown = shown[: len(shown) - len(body)] + _LINE_ENDS.sub(" ", body)
    click.secho(printable(shown), err=err, nl=nl, fg=fg, bold=bold or None)


class _PrintableConsole(Console):
    """Shows what is given to it as it stands: markup in it is text, and so are controls.

    A text is one line, a cell of a table or a line below it: a name that held two would pass for lines of ours.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of anything that can be shown; those that control the terminal are rich's own."""
        if isinstance(renderable, str):
            renderable = _LINE_ENDS.sub(" ", renderable)
        elif isinstance(renderable, Text) and _LINE_ENDS.search(renderable.plain):
            renderable = renderable.copy()
            renderable.plain = _LINE_ENDS.sub(" ", renderable.plain)
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


def console(*, err: bool = False) -> Console:
    """Return a console as wide as the terminal, in a pipe as wide as its lines; `err`: of standard error."""
    is_terminal = (sys.stderr if err else sys.stdout).isatty()
    return _PrintableConsole(stderr=err, markup=False, emoji=False, width=None if is_terminal or err else 500)


def echo_json(value: object) -> None:
    """Print exact facts, as JSON over several lines: what of `value` would not be seen is escaped."""
    click.echo(printable_json(value, indent=True))


def table(*columns: str, title: str = "") -> Table:
    """Return an empty table of these `columns`, whose first one names its rows; all others are figures."""
    narrow = (0, 1, 0, 0)  # with the box's own space, two between columns: eight of them fit 80
    rows = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False, padding=narrow)
    for index, column in enumerate(columns):
        # Where there is no room the names of rows are folded: figures are never cut.
        rows.add_column(column, justify="left" if index == 0 else "right", no_wrap=index > 0, overflow="fold")
    return rows


def figure(number: int) -> str:
    """Return a number that fits a column, millions as `1.2M`; --json has all its digits."""
    return f"{number:,}" if number < 1_000_000 else f"{number / 1e6:,.1f}M"


# ----- as the viewer writes them (lrq/view/static/format.js)


def decimal(value: float | None) -> str:
    """Return a score, reward or margin with two digits; None is `–`."""
    return "–" if value is None else f"{value:,.2f}"


def percent(share: float | None) -> str:
    """Return a share, from 0 to 1, in per cent without digits; None is `–`."""
    return "–" if share is None else f"{100 * share:.0f} %"


def amount(money: float | None) -> str:
    """Return `money` with more digits the less there is, and two at least; None is "unpriced".

    In units of the currency, not in micro-units as `lrq.cli.common.money` takes it.
    """
    if money is None:
        return "unpriced"
    units, _, digits = f"{money:,.{6 if 0 < abs(money) < 0.01 else 4}f}".partition(".")
    return f"{units}.{digits.rstrip('0').ljust(2, '0')}"
