"""Limits over several processes, counted at a strict server, in virtual time on the real script."""

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from limiter_world import Process, Reply, Server, World

from lrq.calls.limiter.records import Limits
from lrq.calls.limiter.script import keys_of


@pytest.fixture
def world(redis_server: Any) -> Iterator[World]:
    world = World(redis_server.url)
    yield world
    world.close()


def processes(world: World, server: Server, count: int, **more: Any) -> list[Process]:
    given = {"backlog": {1: 40, 2: 40}} | more
    return [Process(world, server, f"p{number}", **given) for number in range(count)]


async def test_requests_are_never_too_many_and_nearly_all_used(world: World) -> None:
    """Four processes use 97 % of the limit, and the strict server refuses none, though ways differ by half a second."""
    server = Server(world, requests=1800)
    processes(world, server, 4, limits=Limits(rpm=1800), way=0.5)
    begin = world.now
    world.run(125)
    assert server.refused() == 0
    assert server.accepted(begin + 5, begin + 125) >= 0.97 * 2 * 1800


async def test_tokens_are_never_too_many_and_nearly_all_used(world: World) -> None:
    """The same for tokens, with lengths that vary tenfold and are guessed up to 40 % wrong."""
    server = Server(world, tokens=2_000_000)
    processes(
        world,
        server,
        3,
        limits=Limits(tpm=2_000_000),
        tokens=lambda: world.random.randint(200, 2000),
        guess=lambda tokens: int(tokens * world.random.uniform(0.7, 1.4)),
    )
    world.run(90)
    assert server.refused() <= 0.005 * server.accepted()
    used = sum(tokens for _, tokens in server.log)
    assert used >= 0.97 * 2_000_000


@pytest.mark.parametrize("limits", [Limits(rpm=1200), Limits(concurrency=20)], ids=["rate", "concurrency"])
async def test_runs_share_equally_wherever_their_calls_wait(world: World, limits: Limits) -> None:
    """A run in one process and a run in four each get 40 to 60 % of the calls of a minute."""
    server = Server(world)
    processes(world, server, 3, backlog={2: 40}, limits=limits)
    Process(world, server, "both", backlog={1: 40, 2: 40}, limits=limits)
    begin = world.now
    world.run(70)
    shares = server.shares(begin + 10, begin + 70)
    assert 0.4 <= shares[1] / shares.total() <= 0.6


async def test_a_small_limit_is_kept_and_shared(world: World) -> None:
    """Twenty a minute for five processes: never more in any minute, and both runs get their share of each."""
    server = Server(world, requests=20)
    processes(world, server, 4, backlog={2: 5}, limits=Limits(rpm=20))
    Process(world, server, "other", backlog={1: 5}, limits=Limits(rpm=20))
    begin = world.now
    world.run(180)
    assert server.refused() == 0
    for minute in range(3):
        shares = server.shares(begin + 60 * minute, begin + 60 * minute + 60)
        assert shares.total() >= 19
        assert 0.4 <= shares[1] / shares.total() <= 0.6


async def test_one_slot_goes_round(world: World) -> None:
    """With a concurrency of one, three processes take turns and never overlap."""
    server = Server(world)
    all_of_them = [
        Process(world, server, f"p{run}", backlog={run: 5}, limits=Limits(concurrency=1)) for run in range(3)
    ]
    most = most_in_flight(world, all_of_them)
    world.run(60)
    assert most() == 1
    assert min(server.shares(0, world.now)[run] for run in range(3)) >= 0.2 * server.accepted()


def most_in_flight(world: World, all_of_them: list[Process]) -> Any:
    """Look every 10 ms at how many calls are in flight over all processes that live; returns what was the most."""
    seen = [0]

    def look() -> None:
        seen.append(sum(process.gate.in_flight for process in all_of_them if not process.is_dead))
        world.after(0.01, look)

    look()
    return lambda: max(seen)


async def test_concurrency_is_used_and_not_exceeded(world: World) -> None:
    """Ten slots over four processes: never eleven in flight, and nearly always ten."""
    server = Server(world, latency=0.3)
    all_of_them = processes(world, server, 4, limits=Limits(concurrency=10))
    most = most_in_flight(world, all_of_them)
    begin = world.now
    world.run(40)
    assert most() == 10
    assert server.accepted(begin + 10, begin + 40) >= 0.9 * 30 * 10 / 0.3


async def test_the_slots_of_a_dead_process_come_back(world: World) -> None:
    """Within 15 s of its death the others hold what it held."""
    server = Server(world, latency=1.0)
    dies, *others = processes(world, server, 3, limits=Limits(concurrency=12))
    world.run(10)
    assert sum(process.gate.in_flight for process in others) < 10
    dies.is_dead = True
    world.run(15)
    assert sum(process.gate.in_flight for process in others) == 12


async def test_an_emptied_redis_gives_no_burst(world: World) -> None:
    """All state is lost in the middle of a minute: the server still sees no call too many, of either limit."""
    server = Server(world, requests=1800)
    all_of_them = processes(world, server, 3, limits=Limits(rpm=1800, concurrency=24))
    world.run(65)
    most = most_in_flight(world, all_of_them)
    world.redis.flushall()
    world.run(40)
    assert server.refused() == 0
    assert most() <= 24
    assert server.accepted(world.now - 30) >= 0.9 * 900


async def test_told_too_little_it_obeys(world: World) -> None:
    """Headers that promise more do not raise what the user said."""
    server = Server(world, requests=6000, with_headers=True)
    processes(world, server, 2, limits=Limits(rpm=600))
    world.run(60)
    assert 0.97 * 590 <= server.accepted() <= 600


@pytest.mark.parametrize("with_headers", [True, False])
async def test_told_twice_the_limit_it_settles_below(world: World, with_headers: bool) -> None:
    """After the first minute at most 3 % are refused and at least 90 % of the true limit is used."""
    server = Server(world, requests=1800, with_headers=with_headers)
    processes(world, server, 2, limits=Limits(rpm=3600))
    begin = world.now
    world.run(180)
    refused, accepted = server.refused(begin + 60), server.accepted(begin + 60)
    assert refused <= 0.03 * (accepted + refused)
    assert accepted >= 0.9 * 2 * 1800


async def test_told_nothing_headers_are_enough(world: World) -> None:
    """Without a word from the user the first reply's headers set the pace."""
    server = Server(world, requests=1800, with_headers=True)
    processes(world, server, 2)
    world.run(70)
    assert server.refused() == 0
    assert server.accepted(world.now - 60) >= 0.95 * 1800


async def test_what_others_use_of_the_account_is_left_to_them(world: World) -> None:
    """Another user takes a third; the headers show it, and hardly any of our calls is refused."""
    server = Server(world, requests=3000, with_headers=True)

    def other() -> None:
        server.answer(9, 1)
        world.after(0.06, other)

    other()
    world.run(60)
    processes(world, server, 2, limits=Limits(rpm=3000))
    begin = world.now
    world.run(120)
    ours = [ok for when, run, ok in server.arrived if when >= begin and run != 9]
    assert ours.count(False) <= 0.01 * len(ours)
    assert ours.count(True) >= 0.9 * 2 * 2000


async def test_a_daily_limit_is_no_pace(world: World) -> None:
    """A limit whose reset is hours away does not slow a minute's calls."""
    server = Server(world)
    said = {
        "x-ratelimit-limit-requests": "100",
        "x-ratelimit-remaining-requests": "90",
        "x-ratelimit-reset-requests": "2h24m",
    }
    server.answer = lambda run, tokens: (  # type: ignore[method-assign]
        server.arrived.append((world.now, run, True)) or Reply("ok", 0.1, said)
    )
    processes(world, server, 2, limits=Limits(rpm=1200))
    world.run(60)
    assert server.accepted() >= 0.97 * 1180


async def test_a_pause_holds_for_everyone_and_costs_one_cut(world: World) -> None:
    """A 429 with Retry-After stops all processes until then, and the 429s still in flight lower nothing further."""
    server = Server(world, latency=2.0)
    all_of_them = processes(world, server, 4, limits=Limits(rpm=6000))
    world.run(20)
    accept = server.answer
    server.answer = lambda run, tokens: (  # type: ignore[method-assign]
        server.arrived.append((world.now, run, False)) or Reply("throttled", world.random.random() * 4, {}, 10.0)
    )
    begin = world.now
    world.run(5)
    server.answer = accept  # type: ignore[method-assign]
    assert server.refused(begin, begin + 5) > 20
    assert [process.gate.view.requests.limit for process in all_of_them if process.gate.view] == [4200.0] * 4
    world.run(4.9)
    assert server.accepted(begin + 5, begin + 9.9) == 0
    world.run(10)
    assert 0.5 * 700 <= server.accepted(begin + 10) <= 700


async def test_without_limits_concurrency_is_found(world: World) -> None:
    """A server that works on 32 calls at once is given about as many, and nearly all it can do."""
    server = Server(world, slots=32, latency=0.5)
    all_of_them = processes(world, server, 2)
    world.run(80)
    in_flight = sum(process.gate.in_flight for process in all_of_them)
    assert 24 <= in_flight <= 64
    assert server.accepted(world.now - 40) >= 0.9 * 40 * 32 / 0.5


@pytest.mark.parametrize("latency", [1.0, 5.0, 15.0])
async def test_without_limits_a_server_that_takes_many_has_500_within_a_minute(world: World, latency: float) -> None:
    """Each latency's replies let two more calls begin for each, as long as more calls bring more."""
    server = Server(world, latency=latency)
    all_of_them = processes(world, server, 2, backlog={1: 600})
    world.run(60)
    assert sum(process.gate.in_flight for process in all_of_them) >= 500


@pytest.mark.parametrize(("slots", "latency"), [(4, 2.0), (64, 5.0), (400, 5.0)])
async def test_a_climb_that_runs_stops_where_only_the_waiting_grows(world: World, slots: int, latency: float) -> None:
    """Whatever the server's size, in ten minutes it has nearly all it can do, and no crowd that waits."""
    server = Server(world, slots=slots, latency=latency)
    all_of_them = processes(world, server, 2, backlog={1: 600})
    most = most_in_flight(world, all_of_them)
    world.run(600)
    assert most() <= max(40 * slots, 400)
    begin = world.now
    world.run(120)
    assert sum(process.gate.in_flight for process in all_of_them) <= 3 * slots + 8
    assert server.accepted(begin) >= 0.85 * 120 * slots / latency


async def test_without_limits_concurrency_falls_with_the_server(world: World) -> None:
    """When the server loses three quarters of its slots, the calls that would only wait are taken back."""
    server = Server(world, slots=64, latency=0.5)
    all_of_them = processes(world, server, 2)
    world.run(40)
    assert sum(process.gate.in_flight for process in all_of_them) >= 40
    server.slots = 16
    server.free_at = server.free_at[:16]
    world.run(100)
    assert sum(process.gate.in_flight for process in all_of_them) <= 40


async def test_an_endpoint_that_only_fails_is_probed(world: World) -> None:
    """One call at a time, with growing pauses; the view says so; one reply and all goes on."""
    server = Server(world)
    all_of_them = processes(world, server, 4, limits=Limits(rpm=6000, concurrency=20))
    world.run(10)
    server.is_down = True
    world.run(5)
    begin = world.now
    most = most_in_flight(world, all_of_them)
    world.run(120)
    assert most() == 1
    assert 4 <= server.refused(begin) <= 12
    view = all_of_them[0].gate.view
    assert view
    assert view.probing
    server.is_down = False
    world.run(45)
    assert server.accepted(world.now - 5) >= 0.9 * 5 * 20 / 0.3
    view = all_of_them[0].gate.view
    assert view
    assert not view.probing


async def test_faults_are_no_outage(world: World) -> None:
    """At 30 % failures nothing is slowed down."""
    server = Server(world)
    accept = server.answer
    server.answer = lambda run, tokens: (  # type: ignore[method-assign]
        Reply("failed", 0.05) if world.random.random() < 0.3 else accept(run, tokens)
    )
    processes(world, server, 2, limits=Limits(rpm=3000))
    world.run(60)
    assert server.accepted() >= 0.65 * 2900


async def test_forty_processes_share_one_rate(world: World) -> None:
    """Many processes use as much of a limit as few, without polling more often than they call."""
    server = Server(world, requests=3000)
    all_of_them = processes(world, server, 40, backlog={1: 3}, limits=Limits(rpm=3000))
    world.run(30)
    assert server.refused() == 0
    assert server.accepted() >= 0.95 * 0.5 * 2950
    polls = sum(process.gate.ask(world.now)["seq"] for process in all_of_them)
    assert polls <= 2 * server.accepted()


async def test_a_report_sent_twice_counts_once(world: World) -> None:
    """A poll whose answer was lost is sent again with its number, and its corrections are not applied again."""

    def poll(seq: int, corrections: list[dict[str, int]], wants: list[dict[str, Any]]) -> Any:
        report = {
            "corrections": corrections,
            "unused": [],
            "headers": {},
            "answered": 0,
            "done": {"count": 0, "work": 0, "time": 0},
        }
        ask = {"owner": "a", "now": world.now, "lane": "x", "seq": seq, "told": {"tokens": 1000}, "in_flight": 0}
        ask |= world.constants | {"waiting": len(wants), "soon": 0, "wants": wants, "report": report}
        return orjson.loads(world.script(keys=keys_of("w", "x"), args=[orjson.dumps(ask)]))

    reply = poll(1, [], [{"run": "1", "waiting": 1, "costs": [500], "spare": 0, "each": 0, "taken": 0, "tokens": 0}])
    assert reply["own"]["tokens"] == 500
    back = [{"bucket": reply["bucket"], "requests": 0, "tokens": -200}]
    assert poll(2, back, [])["own"]["tokens"] == 300
    assert poll(2, back, [])["own"]["tokens"] == 300
    assert poll(3, back, [])["own"]["tokens"] == 100


async def test_steady_calls_need_few_polls(world: World) -> None:
    """A hundred calls a second in two processes, far below the limit: nearly none waits for a poll of its own."""
    server = Server(world)
    both = processes(world, server, 2, backlog={}, limits=Limits(rpm=60_000, concurrency=500))
    came: list[Any] = []

    def come(process: Process) -> None:
        came.append(process.add(1))
        process.arrived()
        world.after(0.02 * world.random.uniform(0.5, 1.5), lambda: come(process))

    for process in both:
        come(process)
    world.run(30)
    assert len(came) > 2500
    assert server.accepted() >= len(came) - 20
    polls = sum(process.gate.ask(world.now)["seq"] for process in both)
    assert polls <= 0.4 * len(came)
