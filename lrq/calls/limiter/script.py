"""The script that Redis runs: one round trip of one process for one lane."""

from importlib.resources import files

# In this order: each part uses those before it.
_PARTS = ("state", "limits", "window", "learning", "probing", "concurrency", "sharing", "poll", "main")


def script_text() -> str:
    folder = files("lrq.calls.limiter")
    return "\n".join((folder / f"{part}.lua").read_text(encoding="utf-8") for part in _PARTS)


def keys_of(prefix: str, lane: str) -> list[str]:
    """Return a lane's keys, in the order the script expects: `state`, `owners`, `log`, and the names of all lanes."""
    return [*(f"{prefix}:limiter:{lane}:{part}" for part in ("state", "owners", "log")), lanes_key(prefix)]


def lanes_key(prefix: str) -> str:
    return f"{prefix}:limiter:lanes"
