"""Tables and figures as commands print them."""

from rich import box
from rich.table import Table


def table(*columns: str, title: str = "") -> Table:
    """Return a table whose first column names its rows."""
    narrow = (0, 1, 0, 0)  # with the box's own space, two between columns: eight of them fit 80
    rows = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False, padding=narrow)
    for index, column in enumerate(columns):
        # Where there is no room the names of rows are folded: figures are never cut.
        rows.add_column(column, justify="left" if index == 0 else "right", no_wrap=index > 0, overflow="fold")
    return rows


def figure(number: int) -> str:
    """Return a number that fits a column; --json has all its digits."""
    return f"{number:,}" if number < 1_000_000 else f"{number / 1e6:,.1f}M"


# ----- as the viewer writes them (lrq/view/static/format.js)


def decimal(value: float | None) -> str:
    """Return a score, reward or margin."""
    return "–" if value is None else f"{value:,.2f}"


def percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def amount(money: float | None) -> str:
    """Return units of the currency, with more digits the fewer there are, and two at least."""
    if money is None:
        return "unpriced"
    whole, _, digits = f"{money:,.{6 if 0 < abs(money) < 0.01 else 4}f}".partition(".")
    return f"{whole}.{digits.rstrip('0').ljust(2, '0')}"
