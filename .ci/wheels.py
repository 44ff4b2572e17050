"""The wheel as users install it: alone, and with each extra alone, in fresh environments.

In each every command's --help, the doctor, and a judge-only run against `lrq judge-sim`; what needs an extra that is
not there is refused in one line that names it. Two environments at a time; the wheel alone needs redis-server on PATH.

    python3 .ci/wheels.py dist/lrq-0.1.0-py3-none-any.whl [NAME …]
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
EXTRAS = ("train", "monitor", "broker", "parquet", "otel")
NAMES = ("train", "bare", "monitor", "broker", "parquet", "otel")  # the longest first
HAVE = {"train": {"train", "parquet"}}  # what an extra brings beside itself: datasets needs pyarrow
ITEMS = REPOSITORY / "examples" / "judge_only.jsonl"


class Environment:
    """A virtual environment with the wheel and at most one extra, and an LRQ_HOME."""

    def __init__(self, name: str, wheel: Path, folder: Path) -> None:
        self.name = name
        self.extras = HAVE.get(name, {name})
        self.folder = folder / name
        self.bin = self.folder / "env" / "bin"
        # Commands find no program of the machine but a Redis server; with the extra not even that: its own is to do.
        programs = self.folder / "programs"
        programs.mkdir(parents=True)
        server = shutil.which("redis-server")
        if name != "broker" and server:
            (programs / "redis-server").symlink_to(server)
        own = {name: value for name, value in os.environ.items() if not name.startswith(("LRQ_", "PYTHON", "VIRTUAL_"))}
        self.env = own | {
            "PATH": f"{self.bin}:{programs}",
            "LRQ_HOME": str(self.folder / "home"),
            "LRQ_RUNTIME": tempfile.mkdtemp(prefix="lrq"),
            "OMP_NUM_THREADS": "1",
        }
        subprocess.run([sys.executable, "-m", "venv", self.folder / "env"], check=True)
        what = str(wheel) if name == "bare" else f"{wheel}[{name}]"
        pip = [self.bin / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", what]
        subprocess.run(pip, check=True, env=own)

    def lrq(self, *words: object, code: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command, and check its exit code and that it showed no traceback."""
        done = subprocess.run(
            [self.bin / "lrq", *map(str, words)],
            env=self.env | env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        told = f"{self.name}: lrq {' '.join(map(str, words))}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == code, told
        assert "Traceback" not in done.stderr, told
        return done

    def refused(self, *words: object, extra: str, **env: str) -> None:
        """Check that a command is refused in one line that names the extra that is missing."""
        done = self.lrq(*words, code=1, **env)
        lines = done.stderr.strip().splitlines()
        assert len(lines) == 1, f"{self.name}: {words}: {done.stderr}"
        assert f"lrq[{extra}]" in lines[0], f"{self.name}: {words}: {done.stderr}"


def check(environment: Environment) -> None:
    """Run everything that has to work in this environment."""
    list_commands = "from lrq.cli import COMMANDS; print(*COMMANDS)"
    listed = subprocess.run(
        [environment.bin / "python", "-c", list_commands], capture_output=True, text=True, check=True, cwd="/"
    )
    for command in listed.stdout.split():
        done = environment.lrq(command, "--help")
        assert "Usage: lrq" in done.stdout, f"{environment.name}: {command}: {done.stdout}"
        assert not done.stderr, f"{environment.name}: {command}: {done.stderr}"
    check_missing(environment)
    check_run(environment)


def check_missing(environment: Environment) -> None:
    """Check the words about what is not installed."""
    items = environment.folder / "items.parquet"
    items.write_bytes(b"PAR1")
    pairs = environment.folder / "pairs.jsonl"
    pairs.write_text(json.dumps({"prompt": "a b", "chosen": "c", "rejected": "d"}) + "\n")
    model = REPOSITORY / "examples" / "small_policy" / "model"
    wanted = {
        "train": [
            ("worker", "trainer"),
            ("train", pairs, "--model", model, "--output", environment.folder / "trained"),
        ],
        "monitor": [("flower",)],
        "parquet": [("enqueue", items, "--no-train")],
    }
    for extra, commands in wanted.items():
        for words in commands if extra not in environment.extras else ():
            environment.refused(*words, extra=extra)
    if environment.name != "broker":
        environment.refused("broker", extra="broker", PATH=str(environment.bin))


def check_run(environment: Environment) -> None:
    """Check the doctor and a whole run, with a judge that is no language model."""
    sim = subprocess.Popen(
        [environment.bin / "lrq", "judge-sim", "--port", "0"],
        env=environment.env,
        cwd=environment.folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert sim.stdout is not None
        url = sim.stdout.readline().split()[-1]
        judge = {"LRQ_JUDGE_URL": url, "LRQ_JUDGE_MODEL": "judge-sim", "LRQ_JUDGE_API_KEY": "none"}
        findings = {each["what"]: each for each in json.loads(environment.lrq("doctor", "--json", **judge).stdout)}
        for extra in EXTRAS:
            is_there = findings[f"extra {extra}"]["state"] == "ok"
            assert is_there == (extra in environment.extras), f"{environment.name}: {findings}"
        facts = json.loads(environment.lrq("run", ITEMS, "--no-train", "--json", **judge).stdout)
        assert (facts["state"], facts["pairs"]) == ("done", 12), f"{environment.name}: {facts}"
        mode = (environment.folder / "home").stat().st_mode & 0o777
        assert mode == 0o700, f"{environment.name}: LRQ_HOME has mode {mode:o}"
    finally:
        sim.terminate()
        sim.wait()


def main() -> None:
    wheel, names = Path(sys.argv[1]).resolve(), sys.argv[2:] or NAMES
    with tempfile.TemporaryDirectory(prefix="lrq-wheels") as folder:

        def work(name: str) -> None:
            begun = time.monotonic()
            environment = Environment(name, wheel, Path(folder))
            installed = time.monotonic()
            try:
                check(environment)
            finally:
                shutil.rmtree(environment.env["LRQ_RUNTIME"], ignore_errors=True)
                shutil.rmtree(environment.folder, ignore_errors=True)
            seconds = f"installed in {installed - begun:.0f} s, checked in {time.monotonic() - installed:.0f} s"
            print(f"{name}: {seconds}", flush=True)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(work, names))  # raises what an environment raised


if __name__ == "__main__":
    main()
