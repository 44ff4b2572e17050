"""lrq's processes as a browser meets them: a judge, workers and Flower over one ledger and one Redis."""

import base64
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from lrq.config import load_settings
from lrq.ledger import Ledger, open_ledger
from lrq.queue.broker import find_server

LRQ = Path(sys.executable).with_name("lrq")
PATIENCE = 120.0  # seconds for what takes a few on a machine of one's own
USER, PASSWORD = "ada", "secret"


def wait_for(holds: Callable[[], Any], why: str, seconds: float = PATIENCE) -> Any:
    """Wait until it is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {why}"
        time.sleep(0.1)
    return found


class Processes:
    """One LRQ_HOME; what is started here ends with `close`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[subprocess.Popen[str]] = []
        own = {name: value for name, value in os.environ.items() if not name.startswith(("LRQ_", "FLOWER_"))}
        self.env = own | {"LRQ_HOME": str(folder / "home")}

    def open(self, socket: Path) -> None:
        """Start Redis at this socket, and a judge."""
        self.env |= {"LRQ_REDIS_URL": f"unix://{socket}"}
        self.start([find_server().path, "--port", "0", "--unixsocket", str(socket), "--save", ""], quiet=True)
        wait_for(socket.exists, "Redis")
        judge = self.start([LRQ, "judge-sim", "--port", "0", "--latency", "300"])
        self.env |= {"LRQ_JUDGE_URL": self.line(judge).split()[-1], "LRQ_JUDGE_MODEL": "judge-sim"}
        self.env |= {"LRQ_JUDGE_CONCURRENCY": "4"}  # a long run lasts for minutes

    def start(self, argv: Sequence[object], *, quiet: bool = False, **env: str) -> "subprocess.Popen[str]":
        """Start a process; its standard output can be read unless it is quiet."""
        with (self.folder / "errors.log").open("ab") as errors:
            process = subprocess.Popen(
                list(map(str, argv)),
                env=self.env | env,
                cwd=self.folder,
                stdout=subprocess.DEVNULL if quiet else subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._started.append(process)
        return process

    def line(self, process: "subprocess.Popen[str]") -> str:
        """Read the line that a server says it is up with."""
        assert process.stdout is not None
        said = process.stdout.readline()
        assert "http" in said, said + (self.folder / "errors.log").read_text()
        return said

    def flower(self, **env: str) -> tuple["subprocess.Popen[str]", str]:
        """Start Flower; returns its process and URL."""
        process = self.start([LRQ, "flower", "--port", "0"], **env)
        found = re.search(r"http://\S+?:\d+", self.line(process))
        assert found
        return process, found[0]

    def lrq(self, *words: object) -> str:
        """Run a command to its end; returns what it printed."""
        argv = [str(LRQ), *map(str, words)]
        done = subprocess.run(
            argv, env=self.env, cwd=self.folder, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ledger(self) -> Ledger:
        return open_ledger(load_settings(env=self.env), create=True)

    def enqueue(self, name: str, items: int) -> None:
        """Put items with two responses each into the queues."""
        context = "The Sirius left Hull on Monday with coal. Her master was Ann Hale. She came to Ely on Friday. " * 20
        question = "Where did the Sirius go?"
        lines: list[Mapping[str, Any]] = [
            {
                "id": f"{name}-{n:03d}",
                "context": context,
                "question": f"{question} ({n})",
                "responses": [f"To Ely, on Friday {n}.", f"To Hull, with coal {n}. Ann Hale was master."],
            }
            for n in range(items)
        ]
        path = self.folder / f"{name}.jsonl"
        path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
        self.lrq("enqueue", path, "--name", name, "--no-train", "--set", "settings.min_scored=2")

    def close(self) -> None:
        for process in reversed(self._started):
            process.send_signal(signal.SIGTERM)
        for process in reversed(self._started):
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
            process.communicate()


def login(user: str = USER, password: str = PASSWORD) -> dict[str, str]:
    """Return the header of a login by password."""
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}
