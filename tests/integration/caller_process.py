"""Processes that ask for keys as workers do, forked from one that has loaded everything, so that they start at once.

Run as a program it forks for each line of its input, a JSON object of `start`'s arguments, and answers with the pid.
A process ends by itself when every key has its reply or the run is halted; SIGTERM stops it orderly. Its report says
how it went.
"""

import asyncio
import faulthandler
import json
import os
import random
import signal
import sys
from pathlib import Path

from calling import SOON, calling, question

from lrq.config import load_settings
from lrq.domain.errors import CallFailed, RunHalted, Stopping
from lrq.ledger import open_ledger


async def ask(run: int, keys: int, at_once: int, seed: int) -> dict[str, int]:
    settings = load_settings()
    ledger = open_ledger(settings)
    said = {"replies": 0, "failed": 0, "halted": 0, "stopped": 0}
    order = list(range(keys))
    random.Random(seed).shuffle(order)
    async with calling(ledger, settings, settings.redis(), run=run, patience=SOON) as bench:
        stopping: list[asyncio.Task[None]] = []
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, lambda: stopping.append(asyncio.create_task(bench.caller.stop())))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        room = asyncio.Semaphore(at_once)

        async def one(number: int) -> None:
            async with room:
                try:
                    await bench.caller.call(question(f"question {number}"), bench.purpose)
                    said["replies"] += 1
                except CallFailed:
                    said["failed"] += 1
                except RunHalted:
                    said["halted"] += 1
                except Stopping:
                    said["stopped"] += 1

        await asyncio.gather(*(one(number) for number in order))
        await asyncio.gather(*stopping)
    ledger.close()
    return said


def start(env: dict[str, str], report: str, **asked: int) -> int:
    """Fork a process that asks; its pid."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # until it can be stopped orderly, however slow it is
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        return pid
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    faulthandler.register(signal.SIGUSR1)
    os.environ.update(env)
    said = asyncio.run(ask(**asked))
    Path(report).write_text(json.dumps(said))
    os._exit(0)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever ends leaves nothing behind
    print("ready", flush=True)
    for line in sys.stdin:
        print(start(**json.loads(line)), flush=True)


if __name__ == "__main__":
    main()
