"""A chat template and tokenizer in a process of their own: one that does not end is stopped, whatever it is in.

A template is a program of anyone's and a tokenizer is compiled: no thread can be stopped in `7 ** 10 ** 9` or in a
regular expression, and while it holds the interpreter the whole sampler stands. The kernel ends this process where its
time or memory is used up, the text at hand is given up, and the next one finds a new process.

`python -m lrq.policy.isolated` is the child: a line of JSON comes in for each request, and one goes out.
"""

import atexit
import importlib.util
import itertools
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import orjson

from lrq.domain.environment import SYSTEM, pick
from lrq.domain.errors import UsageError
from lrq.domain.records import Message
from lrq.policy.rendering import Rendering
from lrq.policy.thoughts import Written

LEAST_SECONDS = 60.0  # of processor time for one request …
SECONDS_PER_MIB = 60.0  # … and for each MiB of its text; a slow machine takes one or two
_IDLE = 10  # so many times as long it may take by the clock, on a machine that is busy
_MOST_MEMORY = 8 << 30  # bytes of data
_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}
_numbers = itertools.count()


class Unrenderable(Exception):
    """A chat template or tokenizer did not end, or broke down, on this text."""


@dataclass(frozen=True, kw_only=True)
class IsolatedRendering:
    """What `Rendering` does, in another process. All methods raise Unrenderable; see there for the rest."""

    folder: Path
    template: Mapping[str, Any]
    at: float | None = None
    number: int = field(default_factory=lambda: next(_numbers))  # a tokenizer is loaded once for each

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the token ids of a prompt; raises UsageError where the template refuses the messages."""
        return list(self._ask("prompt_ids", list(messages)))

    def describe(self, messages: Sequence[Message]) -> dict[str, Any]:
        """Return what is needed to render a prompt again."""
        return dict(self._ask("describe", list(messages)))

    def end_ids(self) -> frozenset[int]:
        """Return the ids that the template writes after an answer."""
        return frozenset(self._ask("end_ids"))

    def written(self, ids: Sequence[int]) -> str:
        """Return what was drawn as text, control tokens spelled out."""
        return str(self._ask("written", list(ids)))

    def split(self, ids: Sequence[int]) -> Written:
        """Part what was drawn, without its end, into thought and answer."""
        return Written(**self._ask("split", list(ids)))

    def form(self, ids: Sequence[int]) -> str:
        """Return the name of the message that renders to these ids; empty where none does."""
        return str(self._ask("form", list(ids)))

    def _ask(self, method: str, *arguments: Any) -> Any:
        policy = {"folder": str(self.folder), "template": dict(self.template), "at": self.at, "number": self.number}
        return _process.ask({**policy, "method": method, "arguments": arguments})


class _Process:
    """The child of this process, started when it is first asked; one request at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = 0  # process id: after a fork there is no child yet

    def ask(self, request: Mapping[str, Any]) -> Any:
        data = orjson.dumps(request)
        seconds = LEAST_SECONDS + SECONDS_PER_MIB * len(data) / 2**20
        with self._lock:
            child = self._child if self._child is not None and self._owner == os.getpid() else self._start()
            stdin, stdout = cast("IO[bytes]", child.stdin), cast("IO[bytes]", child.stdout)
            try:
                stdin.write(b"%d %s\n" % (max(1, seconds), data))
                stdin.flush()
                line = stdout.readline()
            except BrokenPipeError:
                line = b""
            if not line.endswith(b"\n"):
                self._child = None
                raise Unrenderable(_why_ended(child, seconds))
        reply = orjson.loads(line)
        if "refused" in reply:
            raise UsageError(reply["refused"])
        if "failed" in reply:
            raise Unrenderable(reply["failed"])
        return reply["value"]

    def close(self) -> None:
        if self._child is not None and self._owner == os.getpid():
            self._child.kill()
            self._child.communicate()
            self._child = None

    def _start(self) -> subprocess.Popen[bytes]:
        self._owner = os.getpid()
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "lrq.policy.isolated"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**pick(os.environ, SYSTEM, ("HF_HOME", "HF_HUB_CACHE")), **_ENVIRONMENT},
            start_new_session=True,  # Ctrl-C is not for it
        )
        return self._child


def _why_ended(child: subprocess.Popen[bytes], seconds: float) -> str:
    child.kill()
    child.communicate()
    if -child.returncode in {signal.SIGPROF, signal.SIGALRM}:
        return f"the chat template or tokenizer did not end within {seconds:.0f} s"
    return f"the chat template or tokenizer broke down (its process ended with {child.returncode})"


_process = _Process()
atexit.register(_process.close)


def main() -> None:
    """Answer requests until there are no more."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # the libraries may print
    resource.setrlimit(resource.RLIMIT_DATA, (_MOST_MEMORY, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Transformers shall find no torch: tokenizers need none, and it takes 180 MB.
    find_spec = importlib.util.find_spec
    importlib.util.find_spec = lambda name, package=None: None if name == "torch" else find_spec(name, package)
    loaded: dict[int, Any] = {}
    for line in sys.stdin.buffer:
        seconds, _, data = line.partition(b" ")
        signal.setitimer(signal.ITIMER_PROF, float(seconds))
        signal.setitimer(signal.ITIMER_REAL, float(seconds) * _IDLE)
        reply = orjson.dumps(_answer(orjson.loads(data), loaded), default=list)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        out.write(reply + b"\n")
        out.flush()


def _answer(request: Mapping[str, Any], loaded: dict[int, Any]) -> dict[str, Any]:
    from lrq.policy.tokenizer import load_tokenizer  # noqa: PLC0415 - after torch is hidden

    number = request["number"]
    try:
        rendering = loaded.get(number)
        if rendering is None:
            loaded.clear()
            rendering = Rendering(tokenizer=load_tokenizer(Path(request["folder"])), template={})
        if (rendering.template, rendering.at) != (request["template"], request["at"]):
            rendering = Rendering(tokenizer=rendering.tokenizer, template=request["template"], at=request["at"])
        loaded[number] = rendering
        return {"value": getattr(rendering, request["method"])(*request["arguments"])}
    except UsageError as error:
        return {"refused": str(error)}
    except Exception as error:  # a template is a program: it raises what it likes
        return {"failed": f"{type(error).__name__}: {error}"[:300]}


if __name__ == "__main__":
    main()
