"""lrq doctor: what is installed, reachable and set."""

import asyncio
import importlib.metadata
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches

import click

from lrq.calls.adapting import Adapting
from lrq.calls.learned import words
from lrq.calls.presets import preset_of
from lrq.calls.prices import rates_of
from lrq.calls.proxies import ignored_proxy, proxy_of
from lrq.calls.transport import Models, Transport
from lrq.calls.trial import Trial, try_call
from lrq.cli import EXIT_ERROR
from lrq.cli.common import json_option, money, settings_options
from lrq.cli.terminal import echo, echo_json
from lrq.config import VARIABLES, Endpoint, Settings
from lrq.domain.errors import LrqError
from lrq.domain.extras import EXTRAS, missing_modules
from lrq.domain.records import ROLES, Role
from lrq.domain.urls import safe_url
from lrq.ledger import learned, open_ledger
from lrq.ledger.learned import Fact, all_facts, keep
from lrq.policy.folder import find
from lrq.queue import broker
from lrq.queue.diagnosis import check_servers
from lrq.recipes import load_recipe
from lrq.run_config import scored_model, snapshot_config
from lrq.workers.probing import check_policy
from lrq.workers.supervisor import unavailable_processes


@dataclass(frozen=True, kw_only=True)
class Finding:
    what: str
    state: str  # ok, note, wrong
    said: str


@click.command()
@click.option("--call", "calls", is_flag=True, help="Make one small paid call to each endpoint.")
@click.option("--forget", is_flag=True, help="Forget what was learned of the endpoints' ways; it is learned anew.")
@json_option
@settings_options
def doctor(calls: bool, forget: bool, as_json: bool, settings: Settings) -> int:
    """Say what is installed, reachable and set, and what to do about what is not. No paid call is made without --call.

    Example: lrq doctor --call
    """
    if forget:
        _forget(settings)
    findings = list(_examine(settings, calls=calls))
    if as_json:
        echo_json([vars(finding) for finding in findings])
    else:
        colors = {"ok": "green", "wrong": "red"}
        for finding in findings:
            echo(f"{finding.state:<5}", fg=colors.get(finding.state), nl=False)
            echo(f"  {finding.what}: {finding.said}")
    return EXIT_ERROR if any(finding.state == "wrong" for finding in findings) else 0


def _examine(settings: Settings, *, calls: bool) -> Iterator[Finding]:
    version = importlib.metadata.version("lrq")
    yield Finding(what="lrq", state="ok", said=f"{version} on Python {platform.python_version()}")
    for extra in EXTRAS:
        missing = missing_modules(extra)
        note = f"without {', '.join(missing)}: pip install 'lrq[{extra}]'" if missing else "installed"
        yield Finding(what=f"extra {extra}", state="note" if missing else "ok", said=note)
    yield _tried("ledger", lambda: _ledger(settings))
    yield _tried("broker", lambda: _broker(settings))
    yield _disk(settings)
    yield from _folder(settings)
    yield from _variables()
    adapting = Adapting(_tried_facts(settings))
    for role in ROLES:
        for endpoint in settings.endpoints(role):
            if endpoint is not settings.scorer:
                yield from _endpoint(role, endpoint, adapting, calls=calls)
    if path := settings.judge.path:
        yield _tried("judge", lambda: f"{scored_model(path)}, served by the scorer that `lrq run` and `lrq up` start")
    _keep(settings, adapting)
    if not settings.endpoints("judge"):
        yield _no_judge(settings)
    if policy := settings.policy.path:
        yield _tried("policy", lambda: _policy(settings, policy))
    for name, reason in unavailable_processes(settings).items():
        yield Finding(what=f"process {name}", state="note", said=f"does not run here: {reason}")


def _no_judge(settings: Settings) -> Finding:
    """Tell whether the recipe of these settings misses a judge where none is named."""
    try:
        recipe = load_recipe(settings.recipe)
    except LrqError as error:
        return Finding(what="recipe", state="wrong", said=str(error))
    if recipe.needs_judge({**recipe.settings, **settings.settings}):
        return Finding(what="judge", state="wrong", said="none is named: set LRQ_JUDGE_URL and LRQ_JUDGE_MODEL")
    return Finding(what="judge", state="ok", said=f"none is named, and recipe {recipe.name} asks none")


def _tried(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what=what, state="ok", said=look())
    except LrqError as error:
        return Finding(what=what, state="wrong", said=str(error))


def _ledger(settings: Settings) -> str:
    ledger = open_ledger(settings, create=True)
    words_ = f"{ledger.place}, id {ledger.id}"
    ledger.close()
    return words_


def _policy(settings: Settings, path: str) -> str:
    """Probe the policy as a run with these settings would."""
    folder = find(path)
    config = snapshot_config(settings, train=True)
    line = check_policy(settings.home, config, is_served=bool(settings.policy.serve))
    return f"{folder}, {line or 'not probed: torch and transformers are not installed here'}"


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


def _tried_facts(settings: Settings) -> list[Fact]:
    """Return what the ledger holds; nothing where it cannot be opened, which is a finding of its own."""
    try:
        ledger = open_ledger(settings)
    except LrqError:
        return []
    with ledger.read() as tx:
        facts = all_facts(tx)
    ledger.close()
    return facts


def _forget(settings: Settings) -> None:
    ledger = open_ledger(settings)
    with ledger.write() as tx:
        for role in ROLES:
            for endpoint in settings.endpoints(role):
                learned.forget(tx, endpoint.address, endpoint.model)
    ledger.close()


def _keep(settings: Settings, adapting: Adapting) -> None:
    if not adapting.new:
        return
    with suppress(LrqError):
        ledger = open_ledger(settings)
        with ledger.write() as tx:
            for fact in adapting.new:
                keep(tx, fact)
        ledger.close()


async def _ask(role: Role, endpoint: Endpoint, adapting: Adapting, *, calls: bool) -> tuple[Models, Trial | None]:
    transport = Transport()
    try:
        models = await transport.models(endpoint)
        if endpoint.model in models.contexts:
            adapting.has_context(endpoint, endpoint.model, models.contexts[endpoint.model])
        return models, await try_call(transport, endpoint, role, adapting) if calls else None
    finally:
        await transport.close()


def _called(what: str, trial: Trial) -> Finding:
    outcome, usage = trial.outcome, trial.usage
    if outcome.kind != "ok":
        return Finding(what=what, state="wrong", said=f"a call brought no reply: {outcome.reason}")
    counts = f"{usage.prompt_tokens:,} + {usage.completion_tokens:,} tokens"
    answer = f"answered a call in {outcome.latency:.1f} s: {counts}, {money(trial.cost_micros)}"
    return Finding(what=what, state="note" if trial.note else "ok", said=f"{answer}; {trial.note}".removesuffix("; "))


def _endpoint(role: Role, endpoint: Endpoint, adapting: Adapting, *, calls: bool) -> Iterator[Finding]:
    what = f"{role} {endpoint.name}"
    models, trial = asyncio.run(_ask(role, endpoint, adapting, calls=calls))
    problem = "" if trial and trial.outcome.kind == "ok" else models.problem  # not all servers list their models
    where = f"{endpoint.model} at {safe_url(endpoint.address)}"
    preset = preset_of(endpoint).name
    where += f" ({preset})" if preset else ""
    if proxy := proxy_of(endpoint):
        where += f" through {safe_url(proxy)}"
    yield Finding(what=what, state="wrong" if problem else "ok", said=f"{where}: {problem}" if problem else where)
    if ignored := ignored_proxy(endpoint):
        note = f"the environment's proxy {safe_url(ignored)} is not used for it: set `proxy: environment` to use it"
        yield Finding(what=what, state="note", said=note)
    if trial:
        yield _called(what, trial)
    if lessons := words(adapting.learned.about(endpoint, endpoint.model)):
        yield Finding(what=what, state="ok", said=f"learned: {'; '.join(lessons)}")
    if not endpoint.secret() and not endpoint.headers:
        yield Finding(what=what, state="note", said=f"no key is set: {_where_of_key(role, endpoint)}")
    if endpoint.rpm is None and endpoint.tpm is None and endpoint.concurrency is None:
        yield Finding(what=what, state="note", said="no limits are set: they will be learnt from its answers")
    if rates_of(endpoint) is None:
        yield Finding(what=what, state="note", said="its price is unknown: calls are unpriced; set price to cap money")
