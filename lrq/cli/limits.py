"""lrq limits: change what may be asked of an endpoint while it is asked."""

import asyncio
import getpass
from datetime import UTC, datetime
from typing import Any

import click

from lrq.cli.common import json_option, settings_options
from lrq.cli.terminal import console, echo, echo_json, table
from lrq.config import Settings
from lrq.domain.errors import UsageError
from lrq.ledger import Ledger, open_ledger
from lrq.ledger.changes import LIMITS, latest_changes, limits_by_lane
from lrq.monitor.control import change
from lrq.monitor.usage import endpoints_by_lane
from lrq.reports.facts import lane_facts


@click.command()
@click.argument("endpoint", required=False)
@click.option("--rpm", type=click.IntRange(1), help="Requests a minute, over all processes.")
@click.option("--tpm", type=click.IntRange(1), help="Tokens a minute, over all processes.")
@click.option("--concurrency", type=click.IntRange(1), help="Calls in flight, over all processes.")
@click.option("--reset", is_flag=True, help="Return to what the settings say.")
@click.option("--reason", help="Why; it is kept with the change.")
@click.option("--who", help="Who changes it; by default the user of this system.")
@json_option
@settings_options
def limits(
    endpoint: str | None,
    *,
    reset: bool,
    reason: str | None,
    who: str | None,
    as_json: bool,
    settings: Settings,
    **new_limits: int | None,
) -> None:
    """Show the limits of all endpoints, or change one's while runs work; no process has to start again.

    ENDPOINT is a name as it is shown, or its beginning (`judge`). What was changed holds over the settings in all
    processes within ten seconds, until it is changed again or reset.

    Example: lrq limits judge --rpm 500 --reason "the provider asked us to slow down"
    """
    ledger = open_ledger(settings)
    values: dict[str, int | None] = {name: value for name, value in new_limits.items() if value is not None}
    if reset:
        if values:
            raise UsageError("--reset returns all limits to the settings: leave the others out")
        values = dict.fromkeys(LIMITS)
    if values:
        if endpoint is None:
            raise UsageError("say whose limits: `lrq limits` without options names the endpoints")
        lane = _find(_facts(ledger, settings), endpoint)
        who = who or getpass.getuser()
        words = change(ledger, who, {"what": "limits", "lane": lane, "reason": reason, **values})
        echo(words, err=True)
    elif reason:
        raise UsageError("a reason is kept with a change: name the new limits, or --reset")
    facts = _facts(ledger, settings)
    if endpoint is not None:
        lane = _find(facts, endpoint)
        facts = {
            "endpoints": [each for each in facts["endpoints"] if each["name"] == lane],
            "changes": [each for each in facts["changes"] if each["endpoint"] == lane],
        }
    if as_json:
        echo_json(facts)
    else:
        _print(facts)


def _facts(ledger: Ledger, settings: Settings) -> dict[str, Any]:
    """Return the limits of the endpoints that the settings, changes or Redis know, and the latest changes."""
    by_name = {name: endpoint for name, (_, endpoint) in endpoints_by_lane(settings).items()}
    with ledger.read() as tx:
        changed = limits_by_lane(tx)
        changes = latest_changes(tx, what="limits")
    live = {lane["name"] for lane in asyncio.run(lane_facts(ledger, settings))}
    endpoints = []
    for name in sorted(by_name.keys() | changed.keys() | live):
        of_settings = {limit: getattr(by_name.get(name), limit, None) for limit in LIMITS}
        of_change = changed.get(name, {})
        endpoints.append(
            {"name": name, "settings": of_settings, "changed": of_change, "in_force": of_settings | of_change}
        )
    return {
        "endpoints": endpoints,
        "changes": [
            {
                "endpoint": each.subject,
                "at": datetime.fromtimestamp(each.at, UTC).isoformat(timespec="seconds"),
                "who": each.who,
                "reason": each.reason,
                "values": dict(each.values),
            }
            for each in changes
        ],
    }


def _find(facts: dict[str, Any], endpoint: str) -> str:
    """Return the endpoint of this name, or the only one whose name begins so. Raises UsageError."""
    names = [each["name"] for each in facts["endpoints"]]
    matches = [endpoint] if endpoint in names else [name for name in names if name.startswith(f"{endpoint}.")]
    if len(matches) != 1:
        reason = "several endpoints are called" if matches else "no endpoint is called"
        raise UsageError(f"{reason} {endpoint!r}: give one of {', '.join(matches or names) or 'none; set judge.url'}")
    return str(matches[0])


def _print(facts: dict[str, Any]) -> None:
    out = console()
    limits_table = table("endpoint", *LIMITS)
    for each in facts["endpoints"]:
        limits_table.add_row(each["name"], *(_limit(each, name) for name in LIMITS))
    out.print(limits_table)
    for each in facts["changes"]:
        values = ", ".join(
            f"{name} {'as set' if value is None else f'{value:,}'}" for name, value in each["values"].items()
        )
        out.print(f"{each['at'][:16]} {each['who']}: {each['endpoint']} {values} ({each['reason']})", soft_wrap=True)


def _limit(endpoint: dict[str, Any], name: str) -> str:
    """Return the limit in force, with the setting where that differs; – where there is none but what is learned."""
    setting, in_force = endpoint["settings"][name], endpoint["in_force"][name]
    shown = "–" if in_force is None else f"{in_force:,}"
    if name not in endpoint["changed"]:
        return shown
    return f"{shown} (set: {'–' if setting is None else f'{setting:,}'})"
