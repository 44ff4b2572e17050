"""lrq doctor: what is installed, reachable and set."""

import asyncio
import importlib.metadata
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches

import click

from lrq.calls.prices import rates_of
from lrq.calls.transport import reachable
from lrq.cli import EXIT_ERROR
from lrq.cli.common import echo_json, json_option, settings_options
from lrq.config import VARIABLES, Endpoint, Settings
from lrq.domain.errors import LrqError
from lrq.domain.extras import EXTRAS, missing_modules
from lrq.domain.records import ROLES
from lrq.domain.urls import safe_url
from lrq.ledger import open_ledger
from lrq.policy.folder import find
from lrq.queue import broker
from lrq.queue.diagnosis import check_servers
from lrq.workers.supervisor import unable


@dataclass(frozen=True, kw_only=True)
class Finding:
    what: str
    state: str  # ok, note, wrong
    said: str


@click.command()
@json_option
@settings_options
def doctor(as_json: bool, settings: Settings) -> int:
    """Say what is installed, reachable and set, and what to do about what is not. No paid call is made.

    Example: lrq doctor
    """
    findings = list(_examine(settings))
    if as_json:
        echo_json([vars(finding) for finding in findings])
    else:
        signs = {"ok": click.style("ok   ", fg="green"), "note": "note ", "wrong": click.style("wrong", fg="red")}
        for finding in findings:
            click.echo(f"{signs[finding.state]}  {finding.what}: {finding.said}")
    return EXIT_ERROR if any(finding.state == "wrong" for finding in findings) else 0


def _examine(settings: Settings) -> Iterator[Finding]:
    version = importlib.metadata.version("lrq")
    yield Finding(what="lrq", state="ok", said=f"{version} on Python {platform.python_version()}")
    for extra in EXTRAS:
        missing = missing_modules(extra)
        said = f"without {', '.join(missing)}: pip install 'lrq[{extra}]'" if missing else "installed"
        yield Finding(what=f"extra {extra}", state="note" if missing else "ok", said=said)
    yield _tried("ledger", lambda: _ledger(settings))
    yield _tried("broker", lambda: _broker(settings))
    yield _disk(settings)
    yield from _folder(settings)
    yield from _variables()
    for role in ROLES:
        for endpoint in settings.endpoints(role):
            yield from _endpoint(role, endpoint)
    if not settings.endpoints("judge"):
        yield Finding(what="judge", state="wrong", said="none is named: set LRQ_JUDGE_URL and LRQ_JUDGE_MODEL")
    if path := settings.policy.path:
        yield _tried("policy", lambda: str(find(path)))
    for name, why in unable(settings).items():
        yield Finding(what=f"process {name}", state="note", said=f"does not run here: {why}")


def _tried(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what=what, state="ok", said=look())
    except LrqError as error:
        return Finding(what=what, state="wrong", said=str(error))


def _ledger(settings: Settings) -> str:
    ledger = open_ledger(settings, create=True)
    said = f"{ledger.place}, id {ledger.id}"
    ledger.close()
    return said


def _broker(settings: Settings) -> str:
    check_servers(settings)
    if broker.probe(settings):
        return "answers"
    server = broker.find_server()
    return f"not running; `lrq up` starts {server.path} {'.'.join(map(str, server.version))}"


def _disk(settings: Settings) -> Finding:
    home = settings.home if settings.home.exists() else settings.home.resolve().parent
    free = shutil.disk_usage(home).free / 2**30
    return Finding(what="disk", state="note" if free < 5 else "ok", said=f"{free:.0f} GiB free below {settings.home}")


def _folder(settings: Settings) -> Iterator[Finding]:
    """Older versions left LRQ_HOME and what lies in it open to others."""
    if not settings.home.is_dir():
        return
    mode = settings.home.stat().st_mode & 0o777
    if mode & 0o077:
        words = f"{settings.home} can be entered by others (mode {mode:o}): chmod 700 {settings.home}"
        yield Finding(what="home", state="note", said=words)


def _variables() -> Iterator[Finding]:
    """Name variables that look like settings and are none."""
    for name in sorted(os.environ):
        if name.startswith("LRQ_") and name not in VARIABLES:
            near = get_close_matches(name, VARIABLES, n=1)
            meant = f"; do you mean {near[0]}?" if near else ""
            yield Finding(what="environment", state="note", said=f"lrq reads no variable {name}{meant}")


def _where_of_key(role: str, endpoint: Endpoint) -> str:
    is_short = endpoint.name == "default"
    return f"LRQ_{role.upper()}_API_KEY" if is_short else f"api_key of {endpoint.name} under {role}.endpoints"


def _endpoint(role: str, endpoint: Endpoint) -> Iterator[Finding]:
    what = f"{role} {endpoint.name}"
    problem = asyncio.run(reachable(endpoint))
    where = f"{endpoint.model} at {safe_url(endpoint.url)}"
    yield Finding(what=what, state="wrong" if problem else "ok", said=f"{where}: {problem}" if problem else where)
    if not endpoint.secret():
        yield Finding(what=what, state="note", said=f"no key is set: {_where_of_key(role, endpoint)}")
    if endpoint.rpm is None and endpoint.tpm is None and endpoint.concurrency is None:
        yield Finding(what=what, state="note", said="no limits are set: they will be learnt from its answers")
    if rates_of(endpoint) is None:
        yield Finding(what=what, state="note", said="its price is unknown: calls are unpriced; set price to cap money")
