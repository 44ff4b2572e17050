"""lrq show: explain every score of an item."""

from typing import Any

import click
from rich.table import Table

from lrq.cli.common import json_option, settings_options
from lrq.cli.terminal import amount, console, decimal, echo, echo_json, table
from lrq.config import Settings
from lrq.domain.errors import UsageError
from lrq.domain.printable import one_line
from lrq.ledger import Ledger, open_ledger
from lrq.ledger import items as items_
from lrq.ledger import runs as runs_
from lrq.reports.item import explain

_SHORT = 300  # characters of a text before it is cut, without --full


@click.command()
@click.argument("item")
@click.option("--response", "-k", type=int, help="Only this response.")
@click.option("--round", "round_", type=click.IntRange(min=0), help="This round, from 0; by default the latest.")
@click.option("--full", is_flag=True, help="Whole texts, the judge's words and the passages.")
@json_option
@settings_options
def show(item: str, response: int | None, round_: int | None, full: bool, as_json: bool, settings: Settings) -> None:
    """Explain an item: its responses, and each score down to the judge's words and the passages it saw.

    ITEM is an item's id, or RUN:ID where several runs have it.

    Example: lrq show my-run:11 -k 3 --full
    """
    ledger = open_ledger(settings)
    facts = explain(ledger, _find(ledger, item), round_)
    if response is not None:
        ks = [entry["k"] for entry in facts["responses"]]
        facts["responses"] = [entry for entry in facts["responses"] if entry["k"] == response]
        if not facts["responses"]:
            raise UsageError(f"item {item!r} has no response {response}; it has {', '.join(map(str, ks)) or 'none'}")
    if as_json:
        echo_json(facts)
        return
    _print(facts, full)


def _find(ledger: Ledger, name: str) -> int:
    with ledger.read() as tx:
        items = items_.find_items(tx, name)
        run, colon, key = name.partition(":")
        if not items and colon and (stored := runs_.find_run(tx, run)) is not None:
            items = items_.find_items(tx, key, stored.id)
    if not items:
        raise UsageError(f"no item {name!r}; `lrq status` names the runs, and an item is named as in its dataset")
    if len(items) > 1:
        raise UsageError(
            f"several runs have an item {name!r}: say which, {' or '.join(f'{r.run}:{name}' for r in items)}"
        )
    return int(items[0].id)


# ----- for people, in the words of the viewer (lrq/view/static/item.js)


def _print(facts: dict[str, Any], full: bool) -> None:
    margins = ", ".join(decimal(row["margin"]) for row in facts["rows"] if row["margin"] is not None)
    words = [facts["id"], facts["state"], f"margin {margins}" if margins else "", one_line(facts["reason"] or "")]
    words.append(f"round {facts['round']}" if facts["round"] else "")
    echo(" · ".join(filter(None, words)), bold=True)
    echo(f"Question: {one_line(facts['question'] or '') or 'This item has no question.'}")
    echo(f"Document: {facts['context_chars']:,} characters")
    names = _response_names(facts["responses"])
    roles = _roles(facts["rows"])
    if facts["responses"]:
        echo("\nResponses", bold=True)
        console().print(_response_table(facts["responses"], names, roles))
    else:
        echo("\nThere is no response yet.")
    for response in facts["responses"]:
        _print_response(response, names[_ref(response)], roles.get(_ref(response), ""), full)
    if full and facts["extraction"]:
        echo("\nFor all responses", bold=True)
    for part in facts["extraction"] if full else ():
        echo(f"extraction, {part['chunk'][0]:,} to {part['chunk'][1]:,}:")
        _quote(part["text"])
    echo("\nCalls", bold=True)
    costs = [call["cost"] for call in facts["calls"] if call["cost"] is not None]
    reasks = sum(call["attempt"] > 0 for call in facts["calls"])
    money = amount(sum(costs) if costs else None)
    echo(f"{len(facts['calls']):,} calls, {reasks:,} asked again, {money}")


def _ref(response: dict[str, Any]) -> tuple[int, int]:
    return response["prompt"], response["k"]


def _response_names(responses: list[dict[str, Any]]) -> dict[tuple[int, int], str]:
    """Name responses by k, and by prompt and k where there are several prompts."""
    has_many = len({response["prompt"] for response in responses}) > 1
    return {(prompt, k): f"{prompt}.{k}" if has_many else str(k) for prompt, k in map(_ref, responses)}


def _roles(rows: list[dict[str, Any]]) -> dict[tuple[int, int], str]:
    """Return chosen or rejected by response."""
    sides = ((turn[role], role) for row in rows for turn in row["turns"] for role in ("chosen", "rejected"))
    return {tuple(side): role for side, role in sides if isinstance(side, tuple | list)}


def _response_table(
    responses: list[dict[str, Any]], names: dict[tuple[int, int], str], roles: dict[tuple[int, int], str]
) -> Table:
    dimensions = sorted({score["dimension"] for response in responses for score in response["scores"]})
    rows = table("response", "reward", *dimensions)
    for response in responses:
        words = (names[_ref(response)], roles.get(_ref(response), ""), "cut" if response["is_cut"] else "")
        scores = {score["dimension"]: score for score in response["scores"]}
        cells = ("–" if name not in scores else _cell(scores[name]) for name in dimensions)
        rows.add_row(" ".join(filter(None, words)), _reward(response), *cells)
    return rows


def _cell(score: dict[str, Any]) -> str:
    if score["value"] is not None:
        return decimal(score["value"])
    return "unscored" if score["state"] == "unscored" else "n/a"


def _reward(response: dict[str, Any]) -> str:
    return decimal(response["reward"]["value"] if response["reward"] else None)


def _print_response(response: dict[str, Any], name: str, role: str, full: bool) -> None:
    cut = "cut by max_new_tokens" if response["is_cut"] else ""
    reason = one_line(response["reward"]["reason"]) if response["reward"] else ""
    length = f"{len(response['text']):,} characters" if response["text"] else ""
    words = (f"\nresponse {name}", role, _reward(response), length, cut, reason)
    echo(" · ".join(filter(None, words)), bold=True)
    if response["text"]:
        _quote(_cut(response["text"], full))
    else:
        echo(f"  no text: {one_line(response['reason'])}")
    if full and response["written"]:
        echo("  all that was written:")
        _quote(response["written"])
    for score in response["scores"]:
        _print_score(score, full)


def _print_score(score: dict[str, Any], full: bool) -> None:
    value = score["state"].replace("_", " ") if score["value"] is None else decimal(score["value"])
    reason = f" ({one_line(score['reason'])})" if score["reason"] else ""
    echo(f"  {score['dimension']}: {value}{reason}", fg="cyan")
    if score["judge"] and (full or "statements" not in score):
        echo("    the judge's words:")
        _quote(_cut(score["judge"], full), 4)
    for name in ("statements_left_out", "passages_left_out"):
        if left_out := score.get(name):
            count = left_out if isinstance(left_out, int) else len(left_out)
            echo(f"    {name.replace('_', ' ')}: {count:,}")
    if statements := score.get("statements", ()):
        echo(f"    statements ({len(statements)})")
    for statement in statements:
        echo(f"    {statement['mark'] or 'unscored'}: {one_line(statement['text'])}")
        if full:
            _print_evidence(statement)


def _print_evidence(statement: dict[str, Any]) -> None:
    if statement["judge"]:
        echo("      the judge's words:")
        _quote(statement["judge"], 6)
    echo(f"      passages ({len(statement['passages'])})")
    for passage in statement["passages"]:
        echo(f"        [{passage['start']:,} to {passage['end']:,}] {one_line(passage['text'])}")


def _cut(text: str, full: bool) -> str:
    return text if full or len(text) <= _SHORT else f"{text[:_SHORT]}… (--full shows all)"


def _quote(text: str, width: int = 2) -> None:
    """Print a text of others with a bar before each line, so that none of them can pass for a line of ours."""
    for line in text.splitlines():
        echo(f"{' ' * width}│ {line}")
