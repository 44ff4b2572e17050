"""Queues, routes and the Celery configuration, without a broker."""

import pytest

from lrq.config import Settings
from lrq.queue.celery import configuration
from lrq.queue.routes import QUEUES, WORKERS, concurrency, concurrency_of, step_queue, task_name
from lrq.recipes import RECIPES


def test_every_queue_has_one_worker_type_and_one_task():
    """No queue is consumed by two worker types, and no two queues share a task name."""
    steps = {f"judge.{step.name}" for recipe in RECIPES.values() for step in recipe.steps}
    assert sorted(QUEUES) == sorted({"sample", "aggregate", "train", "judge", *steps})
    assert len(set(QUEUES)) == len(QUEUES) == len({task_name(queue) for queue in QUEUES})
    assert task_name("judge.faithfulness") == "lrq.judge.faithfulness"


def test_steps_of_ones_own_share_a_queue():
    """Celery knows the queues of recipes that come with lrq; any other step finds a consumer all the same."""
    assert step_queue("faithfulness") == "judge.faithfulness"
    assert step_queue("wit") == "judge"
    assert "judge" in WORKERS["judge"]


def test_routes_are_explicit():
    """Each task goes to its own queue, bound by its own name, and a queue nobody knows is not made up."""
    conf = configuration("redis://host", "abc")
    assert conf["task_routes"] == {task_name(queue): {"queue": queue} for queue in QUEUES}
    assert {queue.name: queue.routing_key for queue in conf["task_queues"]} == {queue: queue for queue in QUEUES}
    assert conf["task_create_missing_queues"] is False


@pytest.mark.parametrize("broker", ["redis://h", "rediss://h", "redis+socket:///s"])
def test_ledgers_share_a_redis_by_their_prefix(broker: str):
    """Over Redis every key begins with the ledger's id."""
    options = configuration(broker, "abc")["broker_transport_options"]
    assert options["global_keyprefix"] == "lrq:abc:"


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("rediss://h/0", "rediss://h/0?ssl_cert_reqs=required"),
        ("rediss://h/0?ssl_ca_certs=/ca", "rediss://h/0?ssl_ca_certs=/ca&ssl_cert_reqs=required"),
        ("rediss://h/0?ssl_cert_reqs=none", "rediss://h/0?ssl_cert_reqs=none"),
        ("redis://h/0", "redis://h/0"),
    ],
)
def test_certificates_are_checked_unless_the_user_says_otherwise(given: str, used: str):
    """kombu alone would send a password over TLS to whoever answers."""
    assert configuration(given, "abc")["broker_url"] == used


def test_another_broker_gets_no_options_of_redis():
    """RabbitMQ's client refuses options it does not know."""
    assert configuration("amqp://guest@host//", "abc")["broker_transport_options"] == {}


@pytest.mark.parametrize(
    ("policy", "worker", "expected"),
    [
        ({}, "judge", 7),
        ({"path": "model"}, "sampler", 1),  # one model in memory
        ({"url": "http://policy/v1"}, "sampler", 7),  # a server takes many at once
        ({}, "trainer", 1),
        ({}, "aggregator", 4),
    ],
)
def test_concurrency_suits_what_the_worker_waits_for(policy: dict[str, str], worker: str, expected: int):
    """Who waits for servers works on many messages at once, who holds a model on one."""
    settings = Settings.model_validate({"judge_threads": 7, "policy": policy})
    assert concurrency(worker, settings) == expected
    assert concurrency_of(WORKERS[worker], settings) == expected


def test_concurrency_of_several_types_is_the_most_careful():
    """A process that consumes everything samples one prompt at a time."""
    settings = Settings.model_validate({"judge_threads": 7})
    assert concurrency_of((), settings) == 1
    assert concurrency_of(("judge", "aggregate"), settings) == 4
    assert concurrency_of(("judge",), settings) == 7
