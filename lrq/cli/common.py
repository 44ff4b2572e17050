"""What commands share: options, settings from flags, numbers for people."""

import functools
import math
import os
import resource
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click
import orjson

from lrq.cli.terminal import console, echo
from lrq.config import OVERRIDES, Settings, load_settings, merge_flags
from lrq.datasets.dataset import Dataset
from lrq.datasets.sources import find_files
from lrq.domain.errors import UsageError
from lrq.operations.ingest import Intent
from lrq.trainer.loss_names import loss_settings
from lrq.workers.probing import check_policy

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
    """Load the settings, and hand flags and file to the processes started from here.

    Args:
        config: the settings file in place of lrq.yaml; None: as LRQ_CONFIG says.
        flags: settings, nested as in the file.

    Raises UsageError with the field at fault.
    """
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
    """Return the settings of `flags`, and over them `judge.concurrency` where the option names one."""
    if concurrency is None:
        return flags
    return {**flags, "judge": {**flags.get("judge", {}), "concurrency": concurrency}}


def raise_file_limit() -> None:
    """Let this process open as many files as the system allows it: each call in flight is a connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft < target:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))


def note_probe(settings: Settings, config: Mapping[str, Any]) -> None:
    """Refuse a policy that cannot be sampled or trained; say in one line where it is not sampled the cheapest way.

    `config` is the run's, as `snapshot_config` makes it.
    """
    line = check_policy(settings.home, config, is_served=bool(settings.policy.serve))
    if line and not settings.policy.serve and "one cache for all" not in line:
        echo(f"policy: {line}", err=True)


json_option = click.option("--json", "as_json", is_flag=True, help="Facts as JSON.")


def money(micros: int | None) -> str:
    """Return `micros`, in micro-units, as units of the currency with four digits; None is "unpriced"."""
    return "unpriced" if micros is None else f"{micros / 1_000_000:,.4f}"


def parse_money(text: str | None) -> int | None:
    """Return units of the currency, such as "12.50", in micro-units; None of None.

    Raises click.BadParameter where `text` is no amount, or not above 0.
    """
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
    """Return a duration for people: `1.5s`, `2m 05s` or `3h 10m`."""
    minutes, remainder = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {remainder:02}s" if minutes else f"{value:.1f}s"


def dataset_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of every command that reads a dataset; `flags_of` and `intent_of` read them."""
    for option in (
        click.option("--max-tokens", type=click.IntRange(min=1), help="Stop at this many tokens."),
        click.option("--max-cost", metavar="MONEY", help="Stop at this amount, e.g. 12.50; needs a known price."),
        click.option("--price", metavar="IN,OUT[,CACHED]", help="The judge's price per million tokens."),
        click.option("--no-train", is_flag=True, help="Stop at the pairs."),
        click.option(
            "--rounds", type=click.IntRange(min=1), help="Sample, judge and train so many times, each from the last."
        ),
        click.option("--strict", is_flag=True, help="Stop at the first line that cannot be used."),
        click.option("--scores-only", is_flag=True, help="Go on where no item can make a pair: scores are wanted."),
        click.option("--adapter", type=click.Choice(["lora"]), help="Train low-rank matrices beside the weights."),
        click.option("--loss", metavar="NAME", help="Train with this loss and its defaults, e.g. sppo."),
        click.option("--recipe", metavar="NAME", help="longreward (default), or my_recipe.py:NAME."),
        click.option(
            "--responses", type=click.Path(exists=True, dir_okay=False), help="A second file, of sampled responses."
        ),
        click.option("--name", metavar="RUN", help="The run's name; by default the file's."),
        click.argument("file", callback=_check_file),
    ):
        command = option(command)
    return command


def _check_file(_context: click.Context, _parameter: click.Parameter, file: str) -> str:
    """Refuse a name, folder or pattern of no file before anything else is looked at."""
    if file != "-":
        find_files(file)
    return file


def flags_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of `dataset_options` that stand for settings, as settings. Raises UsageError."""
    recipe, loss, price, rounds, adapter = (options[name] for name in ("recipe", "loss", "price", "rounds", "adapter"))
    flags: dict[str, Any] = {}
    if rounds is not None:
        if options["no_train"]:
            raise UsageError("--rounds goes on from what each round trains: leave out --no-train, or --rounds")
        flags["train"] = {"rounds": rounds}
    if recipe:
        flags["recipe"] = recipe
    if loss:
        flags["train"] = flags.get("train", {}) | loss_settings(loss)
    if adapter:
        flags["train"] = flags.get("train", {}) | {"adapter": adapter}
    if price is not None:
        flags["judge"] = {"price": _price(price)}
    return flags


def _price(text: str) -> dict[str, float]:
    try:
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in {2, 3} or not all(map(math.isfinite, numbers)):
        raise UsageError(
            f"--price wants IN,OUT or IN,OUT,CACHED per million tokens, for example 0.15,0.6, not {text!r}"
        )
    return dict(zip(("input", "output", "cached"), numbers, strict=False))


def intent_of(options: dict[str, Any]) -> Intent:
    """Return what `dataset_options` ask for. Raises click.BadParameter for an amount that is none."""
    return Intent(
        file=options["file"],
        name=options["name"],
        responses=options["responses"],
        strict=options["strict"],
        train=not options["no_train"],
        max_cost=parse_money(options["max_cost"]),
        max_tokens=options["max_tokens"],
        scores_only=options["scores_only"],
    )


@contextmanager
def reading_bar(dataset: Dataset) -> Iterator[Callable[[], None]]:
    """Show how many of a file's bytes are read; yields what is called at each line.

    Silent where the output is no terminal or the size is unknown.
    """
    source = dataset.source
    if not source.total or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.progress import Progress  # noqa: PLC0415 - most commands show no bar

    with Progress(console=console(err=True)) as progress:
        bar = progress.add_task("reading", total=source.total)
        yield lambda: progress.update(bar, completed=source.position)
