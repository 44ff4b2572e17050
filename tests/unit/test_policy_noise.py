"""The counted noise of sampling."""

import pytest

torch = pytest.importorskip("torch")

from lrq.policy.noise import choose, gumbel, mix, stream  # noqa: E402

GAMMA = 0x9E3779B97F4A7C15


def key(k: int, **changed: object) -> int:
    named = {"seed": 0, "item": "a", "round_": 0, "prompt": 0} | changed
    return stream(**named, k=k)


def test_the_generator_is_splitmix64():
    """The first three numbers of SplitMix64 seeded with 1234567, as published with its reference implementation."""
    states = [(1234567 + i * GAMMA) % (1 << 64) for i in (1, 2, 3)]
    signed = torch.tensor([state - (1 << 64) if state >> 63 else state for state in states])
    found = [number % (1 << 64) for number in mix(signed).tolist()]
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_a_rows_noise_does_not_depend_on_the_other_rows():
    """Row k is the same alone, among others and in another order."""
    keys = [key(k) for k in range(10)]
    together = gumbel(keys, 5, 50, "cpu")
    for k in (0, 3, 9):
        assert torch.equal(gumbel([keys[k]], 5, 50, "cpu")[0], together[k])
    assert torch.equal(gumbel(keys[::-1], 5, 50, "cpu"), together.flip(0))


@pytest.mark.parametrize(
    "changed", [{"seed": 1}, {"item": "b"}, {"round_": 1}, {"prompt": 1}, {"item": "a0", "round_": 0}]
)
def test_every_part_of_a_responses_name_changes_its_noise(changed):
    """Run seed, item, round and prompt each lead to other noise, and so does k."""
    assert key(0, **changed) != key(0)
    assert key(1) != key(0)


def test_positions_have_noise_of_their_own():
    """No noise of one position is found again at the next, at any shift."""
    first, second = gumbel([key(0)], 0, 1000, "cpu")[0], gumbel([key(0)], 1, 1000, "cpu")[0]
    assert not set(first.tolist()) & set(second.tolist())


def test_the_noise_is_gumbels():
    """Mean 0.5772 and variance pi^2 / 6 within five standard errors of 200,000 draws."""
    noise = gumbel([key(k) for k in range(20)], 0, 10_000, "cpu").flatten()
    assert noise.mean().item() == pytest.approx(0.57722, abs=5 * 1.2825 / 200_000**0.5)
    assert noise.var().item() == pytest.approx(1.64493, abs=5 * 1.64493 * (4.4 / 200_000) ** 0.5)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_tokens_are_drawn_from_the_softmax_of_the_logits(temperature):
    """Frequencies over 20,000 responses lie within five standard errors of softmax(logits / T)."""
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0, -3.0, 0.5])
    n = 20_000
    tokens = choose(logits.expand(n, -1), [key(k) for k in range(n)], 7, temperature=temperature, top_p=1.0)
    wanted = (logits / temperature).softmax(-1)
    found = torch.bincount(tokens, minlength=6) / n
    assert ((found - wanted).abs() < 5 * (wanted * (1 - wanted) / n).sqrt()).all()


def test_top_p_draws_from_the_nucleus_alone():
    """Of probabilities .5, .3, .15, .05 a top_p of .7 leaves the first two, in their proportion."""
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    n = 5_000
    tokens = choose(logits.expand(n, -1), [key(k) for k in range(n)], 0, temperature=1.0, top_p=0.7)
    counts = torch.bincount(tokens, minlength=4).tolist()
    assert counts[2:] == [0, 0]
    assert counts[0] / n == pytest.approx(0.5 / 0.8, abs=5 * (0.625 * 0.375 / n) ** 0.5)


def test_temperature_zero_takes_the_likeliest():
    """Without temperature there is no noise."""
    logits = torch.tensor([[0.0, 3.0, 2.9], [5.0, 1.0, 4.9]])
    assert choose(logits, [1, 2], 0, temperature=0, top_p=1.0).tolist() == [1, 0]
