"""The sampler worker: the policy answers an item's prompts, N responses from one prefill each."""

import sys
import threading
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import orjson

from lrq.config import Settings
from lrq.domain.errors import LrqError, Stopping
from lrq.domain.records import Call, Item, Purpose, Reply
from lrq.judge.asking import in_series
from lrq.ledger import backlog
from lrq.ledger import items as items_
from lrq.ledger.backlog import Task
from lrq.ledger.runs import Run
from lrq.policy import Policy, Prompt, Samples, Sampling, open_policy
from lrq.workers import loop
from lrq.workers.accelerator import Accelerator, is_single
from lrq.workers.engine import Engine
from lrq.workers.frozen import Frozen

_opening = threading.Lock()
_policies: dict[bytes, Policy] = {}  # one: a process holds the weights of one policy
_accelerator: Accelerator | None = None
_asked_for: ContextVar[tuple[Purpose, int]] = ContextVar("asked_for")  # a sample's paid calls: for whom, what series


def sample(engine: Engine, task: Task, run: Run, frozen: Frozen) -> None:
    """Have every prompt of the item answered; the item goes on to its steps of judging."""
    with engine.ledger.reading() as conn:
        _, item = items_.load_item(conn, task.item, engine.documents)
    with engine.room.take(sys.getsizeof(item.context)):
        _sample(engine, task, run, frozen, item)


def _sample(engine: Engine, task: Task, run: Run, frozen: Frozen, item: Item) -> None:
    prompts = [
        Prompt(item=item.id, messages=messages, context=item.context, index=index, round=task.round)
        for index, messages in enumerate(frozen.recipe.policy_prompts(item))
    ]
    drawn = [_sample_one(engine, task, run, frozen, prompt) for prompt in prompts]
    with engine.ledger.writing() as conn:
        for prompt, (samples, fingerprint) in zip(prompts, drawn, strict=True):
            body, counted = _body(samples, fingerprint), _counted(samples)
            items_.add_prompt(engine.ledger, conn, task.item, task.round, prompt.index, body, **counted)
            responses = [_response(one) for one in samples.responses]
            items_.add_responses(engine.ledger, conn, task.item, task.round, prompt.index, responses)
        backlog.end_sample(engine.ledger, conn, task, frozen.steps)


def _sample_one(engine: Engine, task: Task, run: Run, frozen: Frozen, prompt: Prompt) -> tuple[Samples, str]:
    """What the policy answers, and its fingerprint."""
    _asked_for.set((Purpose(run=task.run, item=task.item, step="sample", kind="sample"), run.series))
    policy = _policy(engine, frozen)
    if _accelerator is not None:
        _share(policy, _accelerator)
    samples = loop.run(policy.sample(prompt, _sampling(frozen), should_stop=loop.stopping.is_set))
    if samples.seconds > 0:
        engine.notes["tokens_per_second"] = round(samples.completion_tokens / samples.seconds, 1)
    return samples, policy.fingerprint


def _share(policy: Policy, accelerator: Accelerator) -> None:
    """Let a waiting training have the accelerator before we go on."""
    if accelerator.is_wanted():
        policy.release()
        accelerator.give_up()
    if not accelerator.share(loop.stopping):
        raise Stopping
    policy.restore()


def _sampling(frozen: Frozen) -> Sampling:
    own = frozen.config["sample"]
    names = ("temperature", "top_p", "max_new_tokens", "seed", "max_prompt_tokens", "over_long")
    return Sampling(n=own["responses"], **{name: own[name] for name in names})


def _spec(settings: Settings, frozen: Frozen) -> str:
    """The policy of the run: a folder or name as frozen, or the server that this worker's settings name."""
    path = frozen.config["policy"]["path"]
    endpoints = settings.endpoints("policy")
    if path:
        return str(path)
    if endpoints:
        return endpoints[0].url
    raise LrqError("no policy to sample from: set LRQ_POLICY to a model folder or a server's URL")


def _policy(engine: Engine, frozen: Frozen) -> Policy:
    global _accelerator
    spec, own = _spec(engine.settings, frozen), frozen.config["policy"]
    name = orjson.dumps([spec, own["models"], own["dtype"]])  # one server may have the models of several runs
    with _opening:
        if name not in _policies:
            _policies.clear()
            _policies[name] = _open(engine, frozen, spec)
            local = not spec.startswith(("http://", "https://"))
            _accelerator = Accelerator() if local and is_single(engine.settings.policy.device) else None
        return _policies[name]


def _open(engine: Engine, frozen: Frozen, spec: str) -> Policy:
    models: list[dict[str, Any]] = frozen.config["policy"]["models"]

    async def ask(call: Call) -> Reply:
        call = replace(call, extra=models[0]["extra"])
        return await in_series(engine.caller, call, *_asked_for.get())

    device, dtype = engine.settings.policy.device, frozen.config["policy"]["dtype"]
    if not models:
        return open_policy(spec, device=device, dtype=dtype)
    return open_policy(spec, model=models[0]["model"], endpoint=models[0]["endpoint"], ask=ask)


def _body(samples: Samples, fingerprint: str) -> dict[str, Any]:
    return {
        "policy": fingerprint,
        "cut": None if samples.cut is None else [samples.cut.start, samples.cut.end],
        "calls": list(samples.calls),
    }


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
    }
