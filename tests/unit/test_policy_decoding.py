"""Responses decoded together from one prefill, for several kinds of models."""

import pytest

torch = pytest.importorskip("torch")
import transformers as t  # noqa: E402

from lrq.domain.errors import Stopping  # noqa: E402
from lrq.policy import decoding  # noqa: E402
from lrq.policy.decoding import RepeatedFork, SharedFork, decode, fork, prefill  # noqa: E402
from lrq.policy.noise import choose  # noqa: E402
from lrq.policy.port import Sampling  # noqa: E402

SMALL = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}
GPT2 = {"vocab_size": 40, "n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}
KINDS = {
    "llama": (t.LlamaConfig(**SMALL), SharedFork),
    "qwen2": (t.Qwen2Config(**SMALL), SharedFork),
    "eager": (t.LlamaConfig(**SMALL, attn_implementation="eager"), SharedFork),
    "window": (t.MistralConfig(**SMALL, sliding_window=8), RepeatedFork),
    "absolute": (t.GPT2Config(**GPT2), RepeatedFork),
}
IDS = list(range(3, 33))
ENDS = frozenset({1, 2})
SAMPLING = Sampling(max_new_tokens=24)
KEYS = [1000003 * k for k in range(10)]


@pytest.fixture(params=KINDS)
def kind(request):
    config, wanted = KINDS[request.param]
    torch.manual_seed(0)
    with torch.inference_mode():
        yield t.AutoModelForCausalLM.from_config(config).eval(), wanted


def responses(model, keys, read=None, should_stop=lambda: False):
    read = read or prefill(model, IDS)
    forked = fork(model, read.cache, len(keys))
    try:
        return decode(forked, read.logits, keys, SAMPLING, ENDS, should_stop)
    finally:
        forked.close()


def test_each_model_gets_the_fork_that_fits_it(kind):
    """One cache for all rows where attention is full and positions are rotary, else a repeated one."""
    model, wanted = kind
    assert type(fork(model, prefill(model, IDS).cache, 2)) is wanted


def test_tokens_are_drawn_from_the_models_own_distribution(kind, monkeypatch):
    """At every step of every row the distribution equals that of a plain forward over the full sequence."""
    model, _ = kind
    seen: dict[int, list[torch.Tensor]] = {key: [] for key in KEYS}

    def recorded(logits, keys, position, **options):
        for key, row in zip(keys, logits, strict=True):
            seen[key].append(row)
        return choose(logits, keys, position, **options)

    monkeypatch.setattr(decoding, "choose", recorded)
    found = responses(model, KEYS)
    assert len({len(tokens) for tokens in found}) > 2  # rows ended at different steps
    for key, tokens in zip(KEYS, found, strict=True):
        plain = model(input_ids=torch.tensor([IDS + tokens])).logits[0, len(IDS) - 1 : -1]
        assert (torch.stack(seen[key]).softmax(-1) - plain.softmax(-1)).abs().max() < 1e-4
        assert (torch.stack(seen[key]).log_softmax(-1) - plain.log_softmax(-1)).abs().max() < 1e-4


def test_responses_do_not_depend_on_what_is_decoded_beside_them(kind):
    """Ten at once, three and seven, and one at a time are the same responses, from one cache used again and again."""
    model, _ = kind
    together = responses(model, KEYS)
    read = prefill(model, IDS)
    assert responses(model, KEYS[:3], read) + responses(model, KEYS[3:], read) == together
    assert [responses(model, [key], read)[0] for key in KEYS] == together


class Noise(t.LogitsProcessor):
    """Leaves generate() the one token that our noise chooses."""

    def __init__(self, key):
        self.key = key

    def __call__(self, ids, logits):
        token = choose(logits, [self.key], ids.shape[1] - len(IDS), temperature=1.0, top_p=1.0)
        return torch.full_like(logits, -torch.inf).scatter(1, token[:, None], 0.0)


def test_transformers_generate_writes_the_same_given_the_same_noise(kind):
    """generate(), given our noise, repeats each response token by token."""
    model, _ = kind
    for key, tokens in zip(KEYS[:4], responses(model, KEYS)[:4], strict=True):
        written = model.generate(
            torch.tensor([IDS]),
            attention_mask=torch.ones(1, len(IDS)),
            do_sample=False,
            max_new_tokens=SAMPLING.max_new_tokens,
            eos_token_id=sorted(ENDS),
            pad_token_id=0,
            logits_processor=t.LogitsProcessorList([Noise(key)]),
        )
        assert written[0, len(IDS) :].tolist() == tokens


def test_a_step_that_breaks_off_leaves_the_prompts_cache_whole(kind):
    """Memory may run out between two layers; the same cache then still gives the same responses."""
    model, _ = kind
    wanted = responses(model, KEYS)
    read = prefill(model, IDS)
    layers = model.transformer.h if hasattr(model, "transformer") else model.model.layers
    steps = iter(range(100))

    def breaks(*_):
        if next(steps) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    hook = layers[1].register_forward_pre_hook(breaks)
    with pytest.raises(torch.OutOfMemoryError):
        responses(model, KEYS, read)
    hook.remove()
    assert responses(model, KEYS, read) == wanted


def test_a_prompts_cache_is_cropped_only_of_what_was_appended(kind, monkeypatch):
    """A fork that took no step removes nothing: crop(0) means everything in some versions of transformers."""
    model, _ = kind
    cropped = []
    monkeypatch.setattr(decoding.DynamicLayer, "crop", lambda _, tokens: cropped.append(tokens))
    fork(model, prefill(model, IDS).cache, 2).close()
    assert cropped == []


def test_decoding_stops_between_two_tokens(kind):
    """should_stop is asked before each token."""
    model, _ = kind
    asked = iter([False, False, False, True])
    with pytest.raises(Stopping):
        responses(model, KEYS, should_stop=lambda: next(asked))
    assert list(asked) == []
