"""Log lines for people and for machines."""

import io
import json
import logging

from lrq.domain.logs import format_logs, working_on


def written(*, as_json: bool) -> str:
    """Return what two records become: a warning at work, and an exception."""
    stream = io.StringIO()
    logger = logging.Logger("lrq.workers")
    logger.addHandler(logging.StreamHandler(stream))
    format_logs(logger, as_json=as_json)
    with working_on(run="journals", item="ship-03", step="faithfulness"):
        logger.warning("task %d goes back", 12, extra={"action": "retry"})
    try:
        raise ValueError("\x1b[2J")
    except ValueError:
        logger.exception("it failed")
    return stream.getvalue()


def test_a_sentence_names_the_run_and_item() -> None:
    first, *rest = written(as_json=False).splitlines()
    assert first.endswith("WARNING lrq.workers: task 12 goes back [run journals, item ship-03, step faithfulness]")
    assert rest[0].endswith("ERROR lrq.workers: it failed")
    assert rest[-1] == "ValueError: ␛[2J"


def test_json_lines_have_the_same_as_fields() -> None:
    """One object a line, an exception's traceback included."""
    first, second = map(json.loads, written(as_json=True).splitlines())
    assert first.pop("at").endswith("+00:00")
    assert first == {
        "level": "WARNING",
        "logger": "lrq.workers",
        "message": "task 12 goes back",
        "run": "journals",
        "item": "ship-03",
        "step": "faithfulness",
        "action": "retry",
    }
    assert "run" not in second
    assert second["exception"].endswith("ValueError: \x1b[2J")
