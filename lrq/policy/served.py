"""A policy in a folder behind a server that a command of the user's starts, and that ends where its place is needed."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import orjson

from lrq.domain.commands import fill_command
from lrq.domain.errors import LrqError, Stopping
from lrq.policy import keeper
from lrq.policy.folder import fingerprint
from lrq.policy.port import Policy, Prompt, Samples, Sampling, ShouldStop, never

_POLL_SECONDS = 0.2
_REPLY_SECONDS = 5.0  # that one look at the list of models may take
_STOP_SECONDS = keeper.GRACE_SECONDS + 10
_LARGEST_LOG = 16 * 2**20  # bytes; a larger one makes way at the next start
Connect = Callable[[str, str], Policy]  # URL and model's name → the policy behind them


class ServedPolicy:
    """A model folder that a server of the user's own samples; it runs from `restore` to `release`.

    Args:
        command: template of the command, with {model} and {port}.
        environment: all that the command is given of it.
        log: file that what it writes is added to.
        seconds: time that it has until it lists its models.
        api_key: sent with the question for them; None: none.
        connect: makes the policy that asks the server.
    """

    def __init__(
        self,
        folder: Path,
        *,
        command: str,
        environment: Mapping[str, str],
        log: Path,
        seconds: float,
        api_key: str | None,
        connect: Connect,
        should_stop: ShouldStop = never,
    ) -> None:
        self.fingerprint = fingerprint(folder)
        self._folder, self._command, self._environment = folder, command, dict(environment)
        self._log, self._seconds, self._api_key = log, seconds, api_key
        self._connect, self._should_stop = connect, should_stop
        self._process: subprocess.Popen[bytes] | None = None
        self._policy: Policy | None = None

    async def sample(
        self, prompt: Prompt, sampling: Sampling, *, ks: Sequence[int] | None = None, should_stop: ShouldStop = never
    ) -> Samples:
        """Ask the server, which `restore` has started; see Policy."""
        if self._policy is None:
            raise LrqError("the policy's server is not running")
        return await self._policy.sample(prompt, sampling, ks=ks, should_stop=should_stop)

    def restore(self) -> None:
        """Start the server and wait until it answers; nothing while it runs.

        Raises LrqError with its last words where it ends or takes too long, Stopping where we are to stop.
        """
        if self._process is not None and self._process.poll() is None:
            return
        self.release()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = fill_command(self._command, {"model": self._folder, "port": port})
        if self._log.exists() and self._log.stat().st_size > _LARGEST_LOG:
            self._log.replace(self._log.with_suffix(".log.1"))
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            begin = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-I", keeper.__file__, *words],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        url = f"http://127.0.0.1:{port}/v1"
        try:
            self._policy = self._connect(url, self._await_model(f"{url}/models", begin))
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """End the server, with its process group; returns when it has ended."""
        process, self._process, self._policy = self._process, None, None
        if process is None or process.stdin is None:
            return
        process.stdin.close()  # the sign for the keeper
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # of a keeper that was killed

    def _await_model(self, url: str, begin: int) -> str:
        """Return the name of the model that the server at `url` lists, once it does; its log begins at `begin`."""
        assert self._process is not None  # noqa: S101
        until = time.monotonic() + self._seconds
        while (code := self._process.poll()) is None:
            if self._should_stop():
                raise Stopping("the policy's server was not waited for")
            if name := _listed(url, self._api_key):
                return name
            if time.monotonic() > until:
                waited = f"did not answer at {url} within {self._seconds:g} s (policy.serve_timeout)"
                raise LrqError(f"the server of policy.serve {waited}; {self._last_words(begin)}")
            time.sleep(_POLL_SECONDS)
        raise LrqError(f"the server of policy.serve ended with code {code}; {self._last_words(begin)}")

    def _last_words(self, begin: int) -> str:
        with self._log.open("rb") as log:
            log.seek(begin)
            lines = log.read().decode(errors="replace").strip().splitlines()
        return f"its last words: {lines[-1] if lines else 'none'} (see {self._log})"


def _listed(url: str, api_key: str | None) -> str:
    """Return the first model's name of what `url` lists; empty while there is none."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy on the way to the loopback
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        with opener.open(urllib.request.Request(url, headers=headers), timeout=_REPLY_SECONDS) as reply:  # noqa: S310
            return str(orjson.loads(reply.read())["data"][0]["id"])
    except (OSError, ValueError, LookupError, TypeError):  # not yet there, or not yet a list
        return ""
