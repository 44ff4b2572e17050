"""Memory and CPU of Flower: 100,000 tasks, then 1,000 calls a second while a browser looks.

`python benchmarks/flower.py [--tasks 100000] [--seconds 30]`; needs lrq[monitor] and a Redis server. Prints JSON.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from celery import Celery

from lrq.config import load_settings
from lrq.ledger import open_ledger
from lrq.queue.broker import find_server
from lrq.queue.celery import prefix_of

LRQ = Path(sys.executable).with_name("lrq")
WORKERS = 10
TICK = os.sysconf("SC_CLK_TCK")


def usage_of(pid: int) -> tuple[float, float]:
    """Return resident megabytes and CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 1e6, (int(fields[11]) + int(fields[12])) / TICK


def send_tasks(app: Celery, count: int) -> None:
    """Send the events of so many tasks, received to succeeded, as a worker would."""
    result = repr({"run": "journals", "item": "item-000001", "number": 1, "step": "faithfulness", "responses": 10})
    with app.events.default_dispatcher(hostname="judge@bench") as dispatcher:
        dispatcher.send("worker-online")
        for number in range(count):
            uuid = f"{number}-1"
            dispatcher.send("task-received", uuid=uuid, name="lrq.judge.faithfulness", args="()", kwargs="{}")
            dispatcher.send("task-started", uuid=uuid)
            dispatcher.send("task-succeeded", uuid=uuid, result=result, runtime=1.0)


def send_usage(app: Celery, seconds: int) -> None:
    """Send what ten workers report of 100 calls each, every second."""
    figures = {"calls": 25, "prompt_tokens": 50_000, "completion_tokens": 2_500, "cost": 9_000, "latency_ms": 30_000}
    dimensions = ("helpfulness", "logicality", "faithfulness", "completeness")
    lines = [{"run": 1, "role": "judge", "endpoint": "default", "dimension": name, **figures} for name in dimensions]
    with app.events.default_dispatcher(hostname="judge@bench") as dispatcher:
        for _ in range(seconds):
            began = time.monotonic()
            for _worker in range(WORKERS):
                dispatcher.send("judge-usage", usage=lines)
            time.sleep(max(0.0, 1 - (time.monotonic() - began)))


def look(url: str) -> tuple[float, int]:
    """Ask for the page's figures; returns the seconds that the answer took, and its bytes."""
    began = time.perf_counter()
    with urllib.request.urlopen(f"{url}/api/judge/usage", timeout=60) as answer:
        body = answer.read()
    return time.perf_counter() - began, len(body)


def measure(tasks: int, seconds: int) -> dict[str, float]:
    """Return the figures of one Flower."""
    with tempfile.TemporaryDirectory(prefix="lrq") as folder:
        socket = Path(folder) / "s"
        env = os.environ | {"LRQ_HOME": folder, "LRQ_REDIS_URL": f"unix://{socket}"}
        redis = subprocess.Popen([find_server().path, "--port", "0", "--unixsocket", socket, "--save", ""], stdout=-3)
        while not socket.exists():
            time.sleep(0.05)
        ledger = open_ledger(load_settings(env=env), create=True)
        app = Celery(broker=load_settings(env=env).broker(), set_as_current=False)
        app.conf.broker_transport_options = {"global_keyprefix": prefix_of(ledger.id)}
        flower = subprocess.Popen([LRQ, "flower", "--port", "0"], env=env, stdout=-1, stderr=-3, text=True)
        try:
            assert flower.stdout is not None
            url = re.search(r"http://\S+?:\d+", flower.stdout.readline())
            assert url is not None
            time.sleep(3)
            empty, before = usage_of(flower.pid)
            send_tasks(app, tasks)
            while look(url[0])[0] > 1:  # it works through what has arrived
                time.sleep(1)
            time.sleep(5)
            full, middle = usage_of(flower.pid)
            began = time.monotonic()
            send_usage(app, seconds)
            spent = time.monotonic() - began
            loaded, after = usage_of(flower.pid)
            answer, size = look(url[0])
        finally:
            flower.terminate()
            flower.wait()
            redis.terminate()
            redis.wait()
            ledger.close()
    return {
        "tasks": tasks,
        "mb_empty": round(empty),
        "mb_after_tasks": round(full),
        "ms_cpu_per_task": round(1000 * (middle - before) / tasks, 3),
        "mb_after_calls": round(loaded),
        "cpu_share_at_1000_calls_a_second": round((after - middle) / spent, 3),
        "answer_ms": round(1000 * answer, 1),
        "answer_bytes": size,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--seconds", type=int, default=30)
    given = parser.parse_args()
    print(json.dumps(measure(given.tasks, given.seconds), indent=2))
