"""Whether a run's policy can be sampled and trained at all: asked before anything is paid, once for each policy."""

import hashlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import orjson

from lrq.domain.environment import COMPUTE, SYSTEM, pick
from lrq.domain.errors import UsageError
from lrq.policy.folder import find, fingerprint
from lrq.run_config import SCHEDULE
from lrq.trainer import launch

_NEEDED = ("torch", "transformers")
_COUNTED = (*_NEEDED, "trl", "deepspeed", "lrq")  # whose versions a verdict holds for
# No kernel is fetched, and threads of torch that wait for each other sleep.
_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE", "CUDA_VISIBLE_DEVICES": ""}
_SERVED = {"line": "sampled by the server that policy.serve starts", "refusal": ""}


def check_policy(home: Path, config: Mapping[str, Any], *, is_served: bool = False) -> str:
    """Return in words how the policy of a run is sampled; empty where there is none in a folder, or no torch here.

    `is_served`: a server that policy.serve starts samples it. Takes some seconds, in processes of its own and on the
    CPU; the verdict is kept below `home`. Raises UsageError where the policy cannot be sampled, or cannot be trained by
    a run that is to.
    """
    policy = config["policy"]
    if not policy["path"] or not all(map(importlib.util.find_spec, _NEEDED)):
        return ""
    folder = find(policy["path"])
    file = home / "probes" / f"{_key(folder, config, is_served)}.json"
    if file.exists():
        verdict = orjson.loads(file.read_bytes())
    else:
        verdict = _SERVED if is_served else _sampling(folder, policy["dtype"])
        if not verdict["refusal"] and config["train"] is not None:
            verdict = verdict | _training(folder, config["train"])
        if verdict["line"] or verdict["refusal"]:
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary = file.with_suffix(f".{os.getpid()}")
            temporary.write_bytes(orjson.dumps(verdict))
            temporary.replace(file)
    if verdict["refusal"]:
        raise UsageError(f"{folder}: {verdict['refusal']}")
    return str(verdict["line"])


def _key(folder: Path, config: Mapping[str, Any], is_served: bool) -> str:
    """Hash all that a verdict depends on."""
    versions = {}
    for name in _COUNTED:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = ""
    parts = [
        fingerprint(folder),
        config["policy"]["dtype"],
        config["train"],
        versions,
        *(["served"] if is_served else []),
    ]
    return hashlib.blake2b(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()


def _sampling(folder: Path, dtype: str) -> dict[str, str]:
    """Probe the policy in a process of its own; nothing is said where that process was killed (a lack of memory)."""
    command = [sys.executable, "-m", "lrq.policy", str(folder.absolute()), dtype]
    environment = {**pick(os.environ, SYSTEM, COMPUTE), **_ENVIRONMENT}
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=launch.LONGEST_PROBE,
        )
    except subprocess.TimeoutExpired:
        return {"line": "", "refusal": f"it cannot be sampled: a try did not end within {launch.LONGEST_PROBE:g} s"}
    if done.returncode < 0:
        return {"line": "", "refusal": ""}
    if done.returncode:
        words = done.stderr.strip().splitlines() or ["the probe ended without a word"]
        return {"line": "", "refusal": f"it cannot be sampled: {words[-1]}"}
    facts = orjson.loads(done.stdout)
    return {"line": _line(facts), "refusal": facts.get("refusal", "")}


def _line(found: Mapping[str, Any]) -> str:
    ways = {
        "shared": "sampled with one cache for all responses of a prompt",
        "repeated": "sampled with the prompt's cache repeated for each response",
        "batched": "sampled with the prompt read once for each response",
    }
    if "way" not in found:
        return ""
    reason = f" ({found['reason']})" if found["reason"] else ""
    return f"{ways[found['way']]}; |Δ log p| {found['difference']:.0e} from a plain forward pass{reason}"


def _training(folder: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """Let the trainer take one step."""
    arguments = {name: value for name, value in settings.items() if name not in SCHEDULE}
    reason = launch.can_train(folder, arguments)
    return {"refusal": f"it cannot be trained: {reason}"} if reason else {}
