"""Commands on a terminal, with data that would drive it: documents, ids, answers, the judge's words and errors."""

import json
import os
import pty
import re
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lrq.cli import COMMANDS

pytestmark = pytest.mark.slow

TAGS = "".join(chr(0xE0000 + ord(letter)) for letter in "hidden")
FORGED = "item forged: done"  # a line as lrq writes them
# A line that overwrites another, one of its own, a title, a position,
# a colour in eight bits, a bell, a backspace, an override, a tag, a blank without width.
HOSTILE = f"\rlrq: taken\n{FORGED}\x85\x1b]0;taken\x07\x1b[66;6H\x9b35m\x07\x08\u202eevil\u202c{TAGS}\u200b\x7f"
LRQ = str(Path(sys.executable).with_name("lrq"))
WORD = "unmistakable"
UNWANTED = "unwanted"  # what this judge takes no prompt with; no text of ours has it
# What rich and click write themselves: colours, and the cursor around a bar.
OUR_OWN = re.compile(r"\x1b\[(?:[0-9;]*m|\?25[lh]|2K|1A|1G)")
CONTROLS = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\U000e0000-\U000e0fff]"
)


class Judge(BaseHTTPRequestHandler):
    """Answers every prompt with a text that has all marks, and some with an error."""

    protocol_version = "HTTP/1.1"
    count = 0

    def do_GET(self) -> None:
        self._say(200, {"data": [{"id": f"m{HOSTILE}", "max_model_len": 1_000_000}]})

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        Judge.count += 1
        if UNWANTED in asked:
            self._say(400, {"error": {"message": f"we do not take {WORD}{HOSTILE} this"}})
            return
        text = f"{WORD}{HOSTILE}\n<statement>It {HOSTILE} left.</statement>\n[[Fully supported]]\n{HOSTILE} [[7]]"
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        self._say(200, {"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 9}})

    def _say(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def on_terminal(words: tuple[object, ...], env: dict[str, str], folder: Path, seconds: float = 240) -> str:
    """Run lrq on a terminal of its own; what it wrote there."""
    master, slave = pty.openpty()
    command = [LRQ, *map(str, words)]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=env, cwd=folder)
    os.close(slave)
    written, end = b"", time.monotonic() + seconds
    while time.monotonic() < end:
        if select.select([master], [], [], 0.5)[0]:
            try:
                written += os.read(master, 65536)
            except OSError:
                break
        elif process.poll() is not None:
            break
    process.wait(10)
    os.close(master)
    return written.decode("utf-8")


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """Runs a command on a terminal, where a run has been made of hostile data."""
    folder = tmp_path_factory.mktemp("terminal")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("LRQ_")},
        "LRQ_HOME": str(folder / "home"),
        "LRQ_JUDGE_URL": f"http://127.0.0.1:{server.server_address[1]}/v1",
        "LRQ_JUDGE_MODEL": f"m{HOSTILE}",
        "TERM": "xterm-256color",
        "COLUMNS": "2000",
    }
    text = f"{WORD} {HOSTILE} left the harbour. "
    item = {"context": text * 20, "question": f"What {HOSTILE} left?", "answer": text}
    lines = [
        {"id": "first", **item, "responses": [f"{text} once", f"{text} twice"], f"odd{HOSTILE}": 1},
        {"id": "second 船", **item, "responses": [f"{HOSTILE}", f"{text} two"]},
        {"id": "third", **item, "question": f"{UNWANTED} {HOSTILE}", "responses": [f"{UNWANTED} {text}", UNWANTED]},
        {"id": f"fourth{HOSTILE}", **item, "responses": [text]},
        {"id": "fifth", **item, "responses": [{"wrong": HOSTILE}]},
    ]
    file = folder / f"data{HOSTILE.replace('/', '')}.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + f"{HOSTILE} no JSON\n", encoding="utf-8")
    written = on_terminal(("run", file, "--name", "hostile", "--scores-only", "--no-train"), env, folder)
    assert "paused" not in written, "the judge refuses more than one item: no command below would find the run done"

    def run(*words: object) -> str:
        if words == ("run",):
            return written
        return on_terminal(tuple(file if word == "FILE" else word for word in words), env, folder)

    yield run
    server.shutdown()
    server.server_close()


HOSTILE_WORDS = [
    (("run",), "hostile"),
    (("status",), "hostile"),
    (("status", "--json"), "hostile"),
    (("status", "hostile", "--failed"), WORD),
    (("show", "hostile:first", "--full"), WORD),
    (("show", "hostile:first"), WORD),
    (("show", "hostile:third", "--full"), WORD),
    (("show", "hostile:first", "--json"), WORD),
    (("report", "hostile"), "helpfulness"),
    (("export", "hostile", "--format", "scores"), WORD),
    (("estimate", "FILE", "--scores-only"), "tokens"),
    (("doctor",), "judge"),
    (("doctor", "--json"), "judge"),
    (("show", f"hostile:{HOSTILE}"), "no item"),
    (("status", f"{HOSTILE}"), ""),
    (("export", f"{HOSTILE}"), ""),
    (("run", f"no-file{HOSTILE}"), "no-file"),
    ((f"no-command{HOSTILE}",), "no-command"),
    (("--debug", "show", f"hostile:{HOSTILE}"), "Traceback"),
    (("recipe", "check", f"recipe{HOSTILE}.py:X"), "recipe"),
    (("settings", f"judge.{HOSTILE}"), "no setting"),
    (("audit", "hostile"), ""),
    (("limits",), "judge"),
    (("agreement", "hostile"), "hostile"),
    (("rescore", "hostile", "--judge", f"m{HOSTILE}"), ""),
    (("fork", "hostile", "--name", f"fork{HOSTILE}", "--set", "judge.votes=2"), "name"),
    (("evaluate", "FILE", "--policy", f"a{HOSTILE}=folder{HOSTILE}"), "folder"),
    (("train", f"no-rows{HOSTILE}.jsonl", "--model", "m", "--output", "out"), "no-rows"),
    (("enqueue", "FILE", "--name", f"name{HOSTILE}", "--scores-only"), "name"),
    (("pause", f"{HOSTILE}"), "no run"),
    (("budget", f"{HOSTILE}"), "no run"),
    (("label", f"{HOSTILE}"), ""),
    (("view", f"{HOSTILE}", "--port", f"1{HOSTILE}"), ""),
    (("worker", f"{HOSTILE}"), ""),
    (("up", f"--set={HOSTILE}"), ""),
    (("broker", f"--set={HOSTILE}"), ""),
    (("flower", f"--port={HOSTILE}"), ""),
    (("judge-sim", f"--port={HOSTILE}"), ""),
    # Last: after it the run is at work again, and nobody works.
    (("resume", "hostile", "--failed", "--no-wait"), ""),
]


@pytest.mark.parametrize(
    ("words", "holds"),
    HOSTILE_WORDS,
    ids=lambda value: None if isinstance(value, str) else ascii(" ".join(value))[1:30],
)
def test_no_control_of_the_data_comes_through(
    terminal: Callable[..., str], words: tuple[object, ...], holds: str
) -> None:
    """Nothing but colours and the cursor of our own bars; the words themselves are shown."""
    written = terminal(*words)
    assert holds in written
    left = OUR_OWN.sub("", written.replace("\r\n", "\n"))
    found = CONTROLS.search(left)
    assert found is None, left[max(0, found.start() - 60) : found.end() + 60].encode("unicode_escape")
    assert "66;6H" not in OUR_OWN.findall(written)
    starts = [line.lstrip() for line in re.split("[\r\n]", left)]
    assert not [line for line in starts if line.startswith((FORGED, "lrq: taken"))]


def test_json_on_a_terminal_is_exact(terminal: Callable[..., str]) -> None:
    """What is escaped reads as what it was."""
    facts = json.loads(terminal("show", "hostile:first", "--json"))
    assert facts["question"] == f"What {HOSTILE} left?"


def test_every_command_is_tried_with_hostile_data() -> None:
    """A new one is to be added above."""
    assert set(COMMANDS) <= {words[0] for words, _ in HOSTILE_WORDS}
