"""What commands share: settings from flags, the terminal, numbers for people."""

import functools
import os
import resource
from collections.abc import Callable, Mapping
from typing import Any

import click
import orjson

from lrq.cli.terminal import console, echo, echo_json
from lrq.config import OVERRIDES, Settings, load_settings, merge_flags
from lrq.workers.probing import check_policy

__all__ = [
    "apply_settings",
    "concurrency_option",
    "console",
    "echo",
    "echo_json",
    "json_option",
    "money",
    "note_probe",
    "parse_money",
    "raise_file_limit",
    "seconds",
    "settings_options",
    "with_concurrency",
]

_MOST_FILES = 65_536  # some systems' kernels take no more, whatever they call the limit


def settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --config and --set and passes `settings`; child processes inherit both."""

    @click.option("--config", type=click.Path(exists=True, dir_okay=False), help="Settings file instead of ./lrq.yaml.")
    @click.option(
        "--set", "flags", multiple=True, metavar="KEY=VALUE", help="A setting, e.g. judge.rpm=500; repeatable."
    )
    @functools.wraps(command)
    def wrapped(*args: Any, config: str | None, flags: tuple[str, ...], **named: Any) -> Any:
        return command(*args, settings=apply_settings(config, merge_flags(flags)), **named)

    return wrapped


def apply_settings(config: str | None, flags: dict[str, Any]) -> Settings:
    """Load the settings, and hand flags and file to the processes started from here."""
    if config is not None:
        os.environ["LRQ_CONFIG"] = os.path.abspath(config)
    if flags:
        os.environ[OVERRIDES] = orjson.dumps(flags).decode()
    return load_settings()


concurrency_option = click.option(
    "--concurrency",
    type=click.IntRange(1),
    metavar="N",
    help="Judge calls in flight at most, over all processes. By default as many as the rate allows, or as help.",
)


def with_concurrency(flags: dict[str, Any], concurrency: int | None) -> dict[str, Any]:
    """Settings from flags, and those of the option over them."""
    if concurrency is None:
        return flags
    return {**flags, "judge": {**flags.get("judge", {}), "concurrency": concurrency}}


def raise_file_limit() -> None:
    """Let this process open as many files as the system allows it: each call in flight is a connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def note_probe(settings: Settings, config: Mapping[str, Any]) -> None:
    """Refuse a policy that cannot be sampled or trained; say in one line where it is not sampled the cheapest way."""
    line = check_policy(settings.home, config)
    if line and "one cache for all" not in line:
        echo(f"policy: {line}", err=True)


json_option = click.option("--json", "as_json", is_flag=True, help="Facts as JSON.")


def money(micros: int | None) -> str:
    """Micro-units as units of the currency."""
    return "unpriced" if micros is None else f"{micros / 1_000_000:,.4f}"


def parse_money(text: str | None) -> int | None:
    """Units of the currency as micro-units."""
    if text is None:
        return None
    try:
        value = round(float(text) * 1_000_000)
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{text!r} is no amount of money; give it like 12.50") from None
    if value <= 0:
        raise click.BadParameter("a budget is more than nothing")
    return value


def seconds(value: float) -> str:
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {rest:02}s" if minutes else f"{value:.1f}s"
