"""lrq: long documents in; preference pairs and a better long-context model out.

`lrq.run` and `lrq.open_run` are the Python API; they are loaded when they are asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lrq.operations.api import Run, open_run, run

__all__ = ["Run", "open_run", "run"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'lrq' has no attribute {name!r}")
    from lrq.operations import api  # noqa: PLC0415 - a judge process needs none of it

    return getattr(api, name)
