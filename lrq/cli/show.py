"""lrq show: explain every score of an item."""

from typing import Any

import click

from lrq.cli.common import echo, echo_json, json_option, settings_options
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
    with ledger.reading() as conn:
        items = items_.find_items(conn, name)
        run, colon, key = name.partition(":")
        if not items and colon and (stored := runs_.find_run(conn, run)) is not None:
            items = items_.find_items(conn, key, stored.id)
    if not items:
        raise UsageError(f"no item {name!r}; `lrq status` names the runs, and an item is named as in its dataset")
    if len(items) > 1:
        raise UsageError(
            f"several runs have an item {name!r}: say which, {' or '.join(f'{r.run}:{name}' for r in items)}"
        )
    return int(items[0].id)


def _print(facts: dict[str, Any], full: bool) -> None:
    echo(f"item {facts['id']}: {facts['state']} {one_line(facts['reason'] or '')}".rstrip(), bold=True)
    if facts["round"]:
        echo(f"round: {facts['round']}")
    echo(f"question: {one_line(facts['question'] or '')}")
    echo(f"context: {facts['context_chars']:,} characters")
    for row in facts["rows"]:
        margin = "" if row["margin"] is None else f", margin {row['margin']:.3f}"
        echo(f"pair: {row['chosen']} over {row['rejected']}{margin}")
    for response in facts["responses"]:
        _print_response(response, full)
    for part in facts["extraction"] if full else ():
        echo(f"\nextracted from {part['chunk'][0]:,} to {part['chunk'][1]:,}:")
        _quote(part["text"])
    reasks = sum(call["attempt"] > 0 for call in facts["calls"])
    echo(f"\n{len(facts['calls'])} calls, {reasks} of them asked again")


def _print_response(response: dict[str, Any], full: bool) -> None:
    reward = response["reward"]
    summary = "no reward yet" if reward is None else _value(reward["value"], reward["reason"])
    cut = ", cut by max_new_tokens" if response["is_cut"] else ""
    echo(f"\nresponse {response['k']}: {summary}{cut}", bold=True)
    text = response["text"]
    if text:
        _quote(_cut(text, full))
    else:
        echo(f"  (no text: {response['reason']})")
    if full and response["written"]:
        echo("  all that was written:")
        _quote(response["written"])
    for score in response["scores"]:
        echo(f"  {score['dimension']}: {_value(score['value'], score['reason'])}", fg="cyan")
        if score["judge"] and "statements" not in score:
            _quote(_cut(score["judge"], full), 4)
        if score.get("statements_left_out"):
            echo(f"    {score['statements_left_out']} further statements were not checked: they are too many")
        if score.get("passages_left_out"):
            echo(f"    {len(score['passages_left_out'])} passages were not looked at: they have no embedding")
        for statement in score.get("statements", ()):
            echo(f"    {statement['mark'] or 'unscored'}: {one_line(statement['text'])}")
            if full:
                _print_evidence(statement)


def _print_evidence(statement: dict[str, Any]) -> None:
    _quote(statement["judge"] or "", 6)
    for passage in statement["passages"]:
        echo(f"        [{passage['start']:,} to {passage['end']:,}] {one_line(passage['text'])}")


def _value(value: float | None, reason: str) -> str:
    shown = "none" if value is None else f"{value:.2f}"
    return f"{shown} ({one_line(reason)})" if reason else shown


def _cut(text: str, full: bool) -> str:
    return text if full or len(text) <= _SHORT else f"{text[:_SHORT]}… (--full shows all)"


def _quote(text: str, width: int = 2) -> None:
    """Print a text of others with a bar before each line, so that none of them can pass for a line of ours."""
    for line in text.splitlines():
        echo(f"{' ' * width}│ {line}")
