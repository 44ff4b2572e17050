"""lrq rescore: judge a dimension again, as a fork with a name of its own making."""

from typing import Any

import click

from lrq.cli.fork import fork_options, make


@click.command()
@click.argument("run")
@click.option("--dimension", "-d", required=True, metavar="NAME", help="What to judge again, e.g. faithfulness.")
@fork_options
def rescore(run: str, **options: Any) -> int:
    """Judge a dimension of a finished run again by what has changed since: its judge, the prompts of this version or
    your own, the recipe's settings named with --set.

    It is `lrq fork` for one dimension, named RUN-2, RUN-3 and so on: questions that were asked before are not asked
    again, and no other dimension is. The run itself stays as it is, with what was trained on it. The new one has its
    limits (--max-cost, --max-tokens), counted anew.

    Example: lrq rescore my-run --dimension faithfulness --judge strong --set settings.passages=8
    """
    return make(run, name=None, train=False, **options)
