"""The commands; each is loaded when it is asked for, so that `lrq --help` needs no torch and no database."""

import errno
import os
import sys
import traceback
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

from lrq.domain.errors import LrqError, UsageError
from lrq.domain.extras import install_hint

COMMANDS: Mapping[str, str] = {
    "run": "from a file to its result, on this machine",
    "enqueue": "put a dataset into the queues",
    "status": "what runs, what it costs, what failed",
    "show": "explain every score of an item",
    "view": "runs, items and scores in the browser",
    "report": "a run in numbers or as one page, or two runs side by side",
    "label": "compare responses by hand, in the browser",
    "agreement": "rewards against people's labels, scores against reference scores",
    "audit": "what in a run's rewards cannot be trusted, with nothing sent",
    "export": "write pairs and scores in other tools' forms",
    "resume": "go on with a run, and repair it",
    "pause": "let a run take no further calls",
    "budget": "change what a run may spend",
    "limits": "change what may be asked of an endpoint while it is asked",
    "recipe": "check a recipe of one's own, with nothing sent",
    "estimate": "calls, tokens, money and hours before the first call",
    "fork": "a new run of the same items: another judge, prompt or setting",
    "rescore": "judge a dimension again, as a fork",
    "train": "DPO under DeepSpeed on a preference file",
    "evaluate": "mean rewards of a policy on held-out items",
    "up": "start all processes and stay",
    "broker": "the embedded broker, in the foreground",
    "worker": "one worker process: sampler, judge, scorer, aggregator or trainer",
    "flower": "tasks, workers and judge usage in a browser",
    "settings": "all settings: what they do, default, unit and an example",
    "doctor": "what is installed, reachable and set",
    "judge-sim": "an offline stand-in for a judge (no language model)",
}
EXIT_ERROR, EXIT_USAGE, EXIT_PARTLY, EXIT_BUDGET, EXIT_ACCOUNT, EXIT_INTERRUPTED = 1, 2, 3, 4, 5, 130


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"lrq.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _set_debug(_ctx: click.Context, _param: click.Parameter, debug: bool) -> None:
    """Before the command's module is loaded: it may fail at that."""
    if debug:
        os.environ["LRQ_DEBUG"] = "1"


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="lrq")
@click.option("--debug", is_flag=True, is_eager=True, expose_value=False, callback=_set_debug, help="Show tracebacks.")
def _lrq() -> None:
    """Long documents in; preference pairs and a better long-context model out.

    Example: lrq run dataset.jsonl
    """


def main(arguments: list[str] | None = None, **extra: Any) -> None:
    """Run a command; errors the user can mend are one line. Files that it makes are the user's alone.

    Args:
        arguments: in place of those of the process; `extra` goes to click.

    Never returns: it exits with the command's code.
    """
    os.umask(0o077)
    try:
        code = _lrq.main(arguments, prog_name="lrq", standalone_mode=False, **extra)
    except click.exceptions.Exit as done:
        code = done.exit_code
    except click.ClickException as error:
        code = _say_usage(error)
    except (click.Abort, KeyboardInterrupt) as stopped:
        if words := str(stopped.__cause__ or stopped):  # what an operation said of it
            _echo(f"lrq: {words}")
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has had enough
        code = 0
    except Exception as error:
        if os.environ.get("LRQ_DEBUG"):
            _echo("".join(traceback.format_exception(error)).rstrip())
            code = EXIT_ERROR
        else:
            code = _say(error)
    sys.exit(code if isinstance(code, int) else 0)


def _say_usage(error: click.ClickException) -> int:
    """Say what was wrong with the command's words, and where help is; a bare `lrq` has all of its help as the error."""
    message = error.format_message()
    context = getattr(error, "ctx", None)
    is_help = context is not None and not context.args and "\n" in message
    help_ = f" ({context.command_path} --help)" if context is not None else ""
    _echo(message if is_help else f"{_one_line(f'lrq: {message}')}{help_}")
    return error.exit_code


def _echo(text: str) -> None:
    from lrq.cli.terminal import echo  # noqa: PLC0415 - whoever asks for --help does not wait for it

    echo(text, lines=True, err=True)


def _one_line(text: str) -> str:
    """Names and texts that an error quotes may hold line ends: a second line would pass for one of ours."""
    return " ".join(text.split())


def _say(error: Exception) -> int:
    if isinstance(error, LrqError):
        _echo(_one_line(f"lrq: {error}"))
        return EXIT_USAGE if isinstance(error, UsageError) else EXIT_ERROR
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        _echo("lrq: no space left on the disk; free some, and the same command goes on")
        return EXIT_ERROR
    if isinstance(error, OSError) and error.filename:
        _echo(_one_line(f"lrq: {error.filename}: {error.strerror}"))
        return EXIT_ERROR
    if isinstance(error, ImportError) and (hint := install_hint(error.name)):
        _echo(f"lrq: this needs {error.name}, which is not installed: {hint}")
        return EXIT_ERROR
    if type(error).__module__.startswith("sqlalchemy."):
        from lrq.ledger.engine import explain  # noqa: PLC0415 - what raised it has loaded the ledger

        _echo(f"lrq: the ledger does not take it: {explain(error)} (lrq --debug shows where)")
        return EXIT_ERROR
    first = (str(error).splitlines() or [""])[0]
    _echo(f"lrq: {type(error).__name__}: {first} (lrq --debug shows where)")
    return EXIT_ERROR
