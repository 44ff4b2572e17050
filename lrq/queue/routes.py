"""Which worker consumes which queue. Every queue has one Celery task of its own, so runtimes are seen per queue."""

from lrq.config import Settings
from lrq.domain.urls import is_redis
from lrq.recipes import RECIPES

_JUDGE = "judge"  # the queue of all steps of recipes that do not come with lrq
_STEPS = dict.fromkeys(step.name for recipe in RECIPES.values() for step in recipe.steps)
WORKERS: dict[str, tuple[str, ...]] = {
    "sampler": ("sample",),
    "judge": (*(f"{_JUDGE}.{name}" for name in _STEPS), _JUDGE),
    "aggregator": ("aggregate",),
    "trainer": ("train",),
}
QUEUES: tuple[str, ...] = tuple(queue for queues in WORKERS.values() for queue in queues)
_TASKS_ELSEWHERE = 64  # where the broker is no Redis, Celery cannot follow the limits
MOST_TASKS = 1024  # threads of a pool that follows the limits: they are made when they are needed, and only wait


def step_queue(step: str) -> str:
    """Return the queue of a `step` of judging: its own for steps of the recipes that come with lrq, else "judge"."""
    return f"{_JUDGE}.{step}" if step in _STEPS else _JUDGE


def task_queue(task: str) -> str:
    """Return the queue of a task by its name: `sample`, `aggregate`, `train.<window>`, or a step's."""
    kind = task.partition(".")[0]
    return kind if kind in {"sample", "aggregate", "train"} else step_queue(task)


def task_name(queue: str) -> str:
    """Return the Celery task of a queue: `lrq.judge.faithfulness` of `judge.faithfulness`."""
    return f"lrq.{queue}"


def concurrency(worker: str, settings: Settings) -> int:
    """Return how many messages one process of type `worker`, a key of WORKERS, works on at once."""
    if worker == "judge" or (worker == "sampler" and (settings.endpoints("policy") or settings.policy.serve)):
        if settings.judge_threads != "auto":
            return settings.judge_threads
        return MOST_TASKS if is_redis(settings.broker()) else _TASKS_ELSEWHERE  # they wait for servers
    return 4 if worker == "aggregator" else 1  # short transactions; one model in memory


def concurrency_of(queues: tuple[str, ...], settings: Settings) -> int:
    """Return `concurrency` for a process that consumes just these `queues`: what its most careful type allows.

    No queues are all queues.
    """
    types = [worker for worker, consumed in WORKERS.items() if not queues or set(consumed) & set(queues)]
    return min((concurrency(worker, settings) for worker in types), default=concurrency("judge", settings))
