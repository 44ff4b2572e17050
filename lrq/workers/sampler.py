"""The sampler worker: the policy answers an item's prompts, N responses from one prefill each."""

import asyncio
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import orjson

from lrq.config import Settings
from lrq.domain.environment import COMPUTE, SYSTEM, pick
from lrq.domain.errors import LrqError, Stopping
from lrq.domain.records import Call, Prompt, Purpose, Reply, Role
from lrq.judge.asking import in_series
from lrq.ledger import Transaction, backlog
from lrq.ledger import items as items_
from lrq.ledger import runs as runs_
from lrq.ledger.backlog import Task
from lrq.ledger.runs import Run
from lrq.ledger.token_ids import pack_ids
from lrq.policy import Policy, Samples, Sampling, open_policy
from lrq.policy import Prompt as Request
from lrq.policy.folder import find
from lrq.policy.served import ServedPolicy
from lrq.policy.server import ServerPolicy
from lrq.run_config import RunConfig
from lrq.workers import loop
from lrq.workers.accelerator import Accelerator, is_single
from lrq.workers.cases import load_case
from lrq.workers.context import WorkerContext

_at_work = threading.Condition()  # guards what follows; notified where a sample ends
_sampling_now = 0  # samples that are being drawn with the machine's accelerator
_LOOK_EVERY = 1.0  # seconds, of an idle sampler that a training may wait for
_policies: dict[bytes, Policy] = {}  # one: a process holds the weights of one policy
_accelerator: Accelerator | None = None
_asked_for: ContextVar[tuple[Purpose, int]] = ContextVar("asked_for")  # a sample's paid calls: for whom, what series


def sample(worker: WorkerContext, task: Task, run: Run, frozen: RunConfig) -> None:
    """Have the recipe's prompts answered until it has no more; the item goes on to its steps of judging."""
    with worker.ledger.read() as tx:
        _, item = items_.load_item(tx, task.item, worker.documents)
    with worker.room.take(sys.getsizeof(item.context)):
        while prompts := _open_prompts(worker, task, frozen):
            samples = [_sample_one(worker, task, run, frozen, prompt) for prompt in prompts]
            with worker.ledger.write() as tx:
                for each in samples:
                    _keep(tx, task, each)
    with worker.ledger.write() as tx:
        backlog.end_sample(tx, task, frozen.steps)


def _keep(tx: Transaction, task: Task, drawn: "_Drawn") -> None:
    counts = _counted(drawn.samples)
    items_.add_prompt(tx, task.item, task.round, drawn.number, drawn.body(), **counts)
    responses = [_response(response) for response in drawn.samples.responses]
    items_.add_responses(tx, task.item, task.round, drawn.number, responses)


@dataclass(frozen=True, kw_only=True)
class _OpenPrompt:
    """A prompt that nobody has answered yet."""

    number: int
    item: str
    context: str
    prompt: Prompt


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """What a prompt brought, and from whom."""

    number: int
    prompt: Prompt
    samples: Samples
    fingerprint: str

    def body(self) -> dict[str, Any]:
        cut = self.samples.cut
        return {
            "policy": self.fingerprint,
            "cut": None if cut is None else [cut.start, cut.end],
            "rendering": dict(self.samples.rendering),
            "calls": list(self.samples.calls),
            "prompt": items_.pack_prompt(self.prompt),
        }


def _open_prompts(worker: WorkerContext, task: Task, frozen: RunConfig) -> list[_OpenPrompt]:
    with worker.ledger.read() as tx:
        _, case = load_case(tx, frozen, task.item, task.round, documents=worker.documents)
    first, item = len(case.prompts), case.item
    return [
        _OpenPrompt(number=number, item=item.id, context=item.context, prompt=prompt)
        for number, prompt in enumerate(frozen.recipe.prompts(case), first)
    ]


def _sample_one(worker: WorkerContext, task: Task, run: Run, frozen: RunConfig, asked: _OpenPrompt) -> _Drawn:
    prompt = asked.prompt
    _asked_for.set((Purpose(run=task.run, item=task.item, step="sample", kind=prompt.name or "sample"), run.series))
    request = Request(
        item=asked.item,
        messages=prompt.render(asked.context),
        context=prompt.passage(asked.context),
        index=asked.number,
        round=task.round,
        at=run.created_at,
    )
    with _at_model(worker, task, frozen, prompt.by) as model:
        samples = loop.run(model.sample(request, _sampling(frozen, prompt), should_stop=loop.stopping.is_set))
    if samples.seconds > 0:
        worker.notes["tokens_per_second"] = round(samples.completion_tokens / samples.seconds, 1)
    return _Drawn(number=asked.number, prompt=prompt, samples=samples, fingerprint=model.fingerprint)


@contextmanager
def _at_model(
    worker: WorkerContext, task: Task, frozen: RunConfig, by: Literal["policy", "teacher", "judge"]
) -> Iterator[Policy]:
    """Enter with who answers a prompt: of policies that of the task's round, and no other is opened meanwhile."""
    if by != "policy":
        yield _paid_model(worker, frozen, by)
        return
    with ExitStack() as stack:
        with _at_work:
            policy = _policy(worker, frozen, _round_model(worker, task))
            stack.enter_context(_at_accelerator(policy))
        yield policy


@contextmanager
def _at_accelerator(policy: Policy) -> Iterator[None]:
    """Sample with the accelerator, where it is shared with trainings; one that waits for it has it first."""
    global _sampling_now
    if _accelerator is None or isinstance(policy, ServerPolicy):
        yield
        return
    with _at_work:
        if _accelerator.is_wanted():
            _at_work.wait_for(lambda: not _sampling_now)
            policy.release()
            _accelerator.give_up()
        if not _accelerator.share(loop.stopping):
            raise Stopping
        policy.restore()
        _sampling_now += 1
    try:
        yield
    finally:
        with _at_work:
            _sampling_now -= 1
            _at_work.notify_all()


def _yield_when_idle(accelerator: Accelerator) -> None:
    """Let a training have the accelerator while nothing is sampled: at a round's end no further item comes by."""
    while not loop.stopping.wait(_LOOK_EVERY):
        if accelerator.is_wanted() and _at_work.acquire(blocking=False):
            try:
                if not _sampling_now:
                    for policy in list(_policies.values()):
                        policy.release()
                    accelerator.give_up()
            finally:
                _at_work.release()


def _sampling(frozen: RunConfig, prompt: Prompt) -> Sampling:
    values = {**frozen.config["sample"], **prompt.sampling}
    names = ("temperature", "top_p", "max_new_tokens", "seed", "max_prompt_tokens", "over_long")
    return Sampling(n=prompt.samples or values["responses"], **{name: values[name] for name in names})


def _spec(settings: Settings, frozen: RunConfig) -> str:
    """Return the policy as the run began: a folder or name as frozen, or the server that the settings name."""
    path = frozen.config["policy"]["path"]
    endpoints = settings.endpoints("policy")
    if path:
        return str(path)
    if endpoints:
        return endpoints[0].url
    raise LrqError("no policy to sample from: set LRQ_POLICY to a model folder or a server's URL")


def _round_model(worker: WorkerContext, task: Task) -> str:
    """Return the folder of the policy of the task's round; empty in the first, whose policy is the run's."""
    if not task.round:
        return ""
    with worker.ledger.read() as tx:
        return runs_.model_before(tx, task.run, task.round)


def _policy(worker: WorkerContext, frozen: RunConfig, model: str = "") -> Policy:
    """Return the policy in the folder `model`, without one that of the run."""
    global _accelerator
    spec, own = model or _spec(worker.settings, frozen), frozen.config["policy"]
    name = orjson.dumps(
        [spec, own["models"], own["dtype"], own.get("template")]
    )  # one server may have the models of several runs
    with _at_work:
        if name not in _policies:
            _at_work.wait_for(lambda: not _sampling_now)
            _end_servers()
            _policies.clear()
            _policies[name] = _open(worker, frozen, spec)
            local, serve = not spec.startswith(("http://", "https://")), worker.settings.policy.serve
            if local and _accelerator is None and (serve or is_single(worker.settings.policy.device)):
                _accelerator = Accelerator()
                threading.Thread(target=_yield_when_idle, args=(_accelerator,), daemon=True).start()
        return _policies[name]


def _open(worker: WorkerContext, frozen: RunConfig, spec: str) -> Policy:
    models: list[dict[str, Any]] = frozen.config["policy"]["models"]
    device, dtype = worker.settings.policy.device, frozen.config["policy"]["dtype"]
    template = frozen.config["policy"].get("template") or {}
    if worker.settings.policy.serve and not spec.startswith(("http://", "https://")):
        return _serve(worker, find(spec), template)
    if not models:
        return open_policy(spec, device=device, dtype=dtype, template=template)
    return _server(worker, "policy", spec, models[0], template)


def _serve(worker: WorkerContext, folder: Path, template: Mapping[str, Any]) -> ServedPolicy:
    """Return the policy in a folder behind the server that policy.serve starts; it ends with this process."""
    settings = worker.settings
    key = settings.policy.api_key

    def connect(url: str, model: str) -> Policy:
        endpoint = settings.policy.served(url=url, model=model, identity=f"served {served.fingerprint}")
        worker.settings = settings.serving(endpoint)
        worker.caller.use(worker.settings)
        named: dict[str, Any] = {"endpoint": endpoint.name, "model": model, "extra": {}, "identity": endpoint.identity}
        return _server(worker, "policy", url, named, template)

    served = ServedPolicy(
        folder,
        command=settings.policy.serve or "",
        environment=pick(os.environ, SYSTEM, COMPUTE),
        log=settings.home / "logs" / "policy-server.log",
        seconds=settings.policy.serve_timeout,
        api_key=None if key is None else key.get_secret_value(),
        connect=connect,
        should_stop=loop.stopping.is_set,
    )
    loop.at_close(lambda: asyncio.to_thread(served.release))
    return served


def _end_servers() -> None:
    for policy in _policies.values():
        if isinstance(policy, ServedPolicy):
            policy.release()


def _paid_model(worker: WorkerContext, frozen: RunConfig, role: Literal["teacher", "judge"]) -> Policy:
    """Return the first teacher or judge of the run, asked as a policy behind a server is."""
    models = frozen.config.get(role, {}).get("models", ())
    endpoints = worker.settings.endpoints(role)
    if not models or not endpoints:
        raise LrqError(f"this recipe asks a {role}: set LRQ_{role.upper()}_URL and LRQ_{role.upper()}_MODEL")
    return _server(worker, role, endpoints[0].url, models[0], {})


def _server(
    worker: WorkerContext, role: Role, url: str, model: Mapping[str, Any], template: Mapping[str, Any]
) -> Policy:
    async def ask(call: Call) -> Reply:
        parameters = {"extra": {**call.extra, **model["extra"]}, "identity": model.get("identity", "")}
        call = replace(call, role=role, **parameters)
        return await in_series(worker.caller, call, *_asked_for.get())

    async def shortest_window() -> int | None:
        """Return the shortest window of a pool: any of its servers may answer."""
        pool = worker.settings.pool(role, model["endpoint"])
        windows = [(await worker.transport.models(server)).context_of(model["model"]) for server in pool]
        return min((length for length in windows if length is not None), default=None)

    return open_policy(
        url,
        model=model["model"],
        endpoint=model["endpoint"],
        ask=ask,
        template=template,
        context_length=shortest_window,
    )


def _counted(samples: Samples) -> dict[str, float]:
    return {
        "prompt_tokens": samples.prompt_tokens,
        "completion_tokens": samples.completion_tokens,
        "seconds": round(samples.seconds, 3),
    }


def _response(one: Any) -> dict[str, Any]:
    return {
        "k": one.k,
        "text": one.text,
        "reason": one.reason,
        "tokens": one.tokens or 0,
        "finish": (one.finish or "stop")[:16],  # servers have words of their own
        "ids": pack_ids(one.ids),
        "written": one.written,
        "form": one.form,
    }
