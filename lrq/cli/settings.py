"""lrq settings: the settings reference."""

from collections.abc import Iterable
from difflib import get_close_matches

import click

from lrq.cli.common import json_option
from lrq.cli.terminal import echo, echo_json
from lrq.domain.errors import UsageError
from lrq.domain.records import ROLES
from lrq.operations.settings_reference import ROLE, Entry, as_data, find_entries, page, sections


@click.command()
@click.argument("key", required=False)
@click.option("--markdown", is_flag=True, help="Print the page of the documentation.")
@json_option
def settings(key: str | None, markdown: bool, as_json: bool) -> None:
    """Print all settings: what they do, default, unit and an example; or those of KEY.

    Example: lrq settings judge.rpm
    """
    if markdown:
        echo(page(), lines=True, nl=False)
        return
    entries = find_entries(key) if key else [entry for section in sections() for entry in section.entries]
    if not entries:
        raise UsageError(_unknown(str(key)))
    if as_json:
        keys = {entry.key for entry in entries}
        echo_json([each for each in as_data() if each["key"] in keys])
        return
    role = key.partition(".")[0] if key and key.partition(".")[0] in ROLES else None
    for entry in entries:
        name, *lines = _lines(entry, role)
        echo(name, bold=True)
        echo("\n".join(lines), lines=True)


def _lines(entry: Entry, role: str | None) -> Iterable[str]:
    def named(text: str) -> str:
        return text.replace(ROLE, role.upper() if text.startswith("LRQ_") else role) if role else text

    yield named(entry.key) + (f"  ({named(entry.variable)})" if entry.variable else "")
    yield f"    {entry.description}"
    facts = [f"default: {entry.default}", f"unit: {entry.unit}" if entry.unit else ""]
    yield "    " + "; ".join(
        [*filter(None, facts), f"example: {named(entry.example)}" if entry.example else ""]
    ).rstrip("; ")


def _unknown(key: str) -> str:
    role = key.partition(".")[0]
    keys = [
        entry.key.replace(ROLE, role if role in ROLES else "judge")
        for section in sections()
        for entry in section.entries
    ]
    near = get_close_matches(key, keys, n=2)
    return f"there is no setting {key}" + (
        f"; do you mean {' or '.join(near)}?" if near else "; `lrq settings` has all"
    )
