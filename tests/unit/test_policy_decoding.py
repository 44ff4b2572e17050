"""Responses decoded together from one prefill, for several kinds of models."""

import pytest

torch = pytest.importorskip("torch")
import transformers as t  # noqa: E402

from lrq.domain.errors import Stopping  # noqa: E402
from lrq.domain.records import NOT_FINITE  # noqa: E402
from lrq.policy import decoding, forks  # noqa: E402
from lrq.policy.decoding import decode  # noqa: E402
from lrq.policy.forks import fork, prefill  # noqa: E402
from lrq.policy.noise import choose  # noqa: E402
from lrq.policy.port import Sampling  # noqa: E402
from lrq.policy.probing import CannotSample, probe  # noqa: E402

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
    "llama": (t.LlamaConfig(**SMALL), "shared"),
    "qwen2": (t.Qwen2Config(**SMALL), "shared"),
    "eager": (t.LlamaConfig(**SMALL, attn_implementation="eager"), "shared"),
    "window": (t.MistralConfig(**SMALL, sliding_window=8), "repeated"),
    "absolute": (t.GPT2Config(**GPT2), "shared"),
    "bias": (t.BloomConfig(vocab_size=40, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3), "repeated"),
}
IDS = list(range(3, 33))
ENDS = frozenset({1, 2})
SAMPLING = Sampling(max_new_tokens=24)
KEYS = [1000003 * k for k in range(10)]


@pytest.fixture(params=KINDS)
def kind(request):
    config, way = KINDS[request.param]
    torch.manual_seed(0)
    with torch.inference_mode():
        yield t.AutoModelForCausalLM.from_config(config).eval(), way


def responses(kind, keys, read=None, should_stop=lambda: False):
    model, way = kind
    read = read or prefill(model, IDS)
    forked = fork(model, read, len(keys), way)
    try:
        return [one.ids for one in decode(forked, read.logits, keys, SAMPLING, ENDS, should_stop)]
    finally:
        forked.close()


def test_each_model_gets_the_cheapest_way_that_is_exact(kind):
    """One cache for all rows where a token's place among the keys means nothing, else a repeated one."""
    model, way = kind
    probed = probe(model)
    assert probed.way == way
    assert probed.difference < 1e-4


def test_tokens_are_drawn_from_the_models_own_distribution(kind, monkeypatch):
    """At every step of every row the distribution equals that of a plain forward over the full sequence."""
    model, _ = kind
    seen: dict[int, list[torch.Tensor]] = {key: [] for key in KEYS}

    def recorded(logits, keys, position, **options):
        for key, row in zip(keys, logits, strict=True):
            seen[key].append(row)
        return choose(logits, keys, position, **options)

    monkeypatch.setattr(decoding, "choose", recorded)
    found = responses(kind, KEYS)
    assert len({len(tokens) for tokens in found}) > 2  # rows ended at different steps
    for key, tokens in zip(KEYS, found, strict=True):
        plain = model(input_ids=torch.tensor([IDS + tokens])).logits[0, len(IDS) - 1 : -1]
        assert (torch.stack(seen[key]).softmax(-1) - plain.softmax(-1)).abs().max() < 1e-4
        assert (torch.stack(seen[key]).log_softmax(-1) - plain.log_softmax(-1)).abs().max() < 1e-4


def test_responses_do_not_depend_on_what_is_decoded_beside_them(kind):
    """Ten at once, three and seven, and one at a time are the same responses, from one cache used again and again."""
    model, _ = kind
    together = responses(kind, KEYS)
    read = prefill(model, IDS)
    assert responses(kind, KEYS[:3], read) + responses(kind, KEYS[3:], read) == together
    assert [responses(kind, [key], read)[0] for key in KEYS] == together


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
    for key, tokens in zip(KEYS[:4], responses(kind, KEYS)[:4], strict=True):
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
    wanted = responses(kind, KEYS)
    read = prefill(model, IDS)
    layers = model.transformer.h if hasattr(model, "transformer") else model.model.layers
    steps = iter(range(100))

    def breaks(*_):
        if next(steps) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    hook = layers[1].register_forward_pre_hook(breaks)
    with pytest.raises(torch.OutOfMemoryError):
        responses(kind, KEYS, read)
    hook.remove()
    assert responses(kind, KEYS, read) == wanted


def test_a_prompts_cache_is_cropped_only_of_what_was_appended(kind, monkeypatch):
    """A fork that took no step removes nothing: crop(0) means everything in some versions of transformers."""
    cropped = []
    monkeypatch.setattr(forks.DynamicLayer, "crop", lambda _, tokens: cropped.append(tokens))
    model, way = kind
    fork(model, prefill(model, IDS), 2, way).close()
    assert cropped == []


def test_decoding_stops_between_two_tokens(kind):
    """should_stop is asked before each token."""
    asked = iter([False, False, False, True])
    with pytest.raises(Stopping):
        responses(kind, KEYS, should_stop=lambda: next(asked))
    assert list(asked) == []


def test_a_row_whose_logits_are_not_finite_fails_alone(kind):
    """A NaN or an infinity in one row's logits ends that row with its reason; the others go on as ever."""
    model, way = kind
    keys = [key for key, ids in zip(KEYS, responses(kind, KEYS), strict=True) if len(ids) > 3][:3]
    wanted = responses(kind, keys)
    assert len(wanted) == 3

    class Broken:
        def __init__(self, inner):
            self.inner, self.steps = inner, 0

        def step(self, rows, tokens):
            logits = self.inner.step(rows, tokens).clone()
            self.steps += 1
            if self.steps == 2:
                logits[list(rows).index(1), 5] = torch.inf if way == "shared" else torch.nan
            return logits

    read = prefill(model, IDS)
    broken = Broken(fork(model, read, 3, way))
    drawn = decode(broken, read.logits, keys, SAMPLING, ENDS, lambda: False)
    assert [one.failure for one in drawn] == ["", NOT_FINITE, ""]
    assert drawn[1].ids == wanted[1][:2]
    assert [drawn[0].ids, drawn[2].ids] == [wanted[0], wanted[2]]


def test_a_model_with_a_nan_is_refused(kind):
    """The probe says what is wrong before anything is sampled."""
    model, _ = kind
    model.get_output_embeddings().weight[3] = torch.nan
    with pytest.raises(CannotSample, match="logits are not finite"):
        probe(model)


def test_a_model_whose_cached_steps_are_wrong_is_refused(kind, monkeypatch):
    """Where no way gives the logits of a plain forward pass, the model is not sampled."""
    model, _ = kind
    plain = model.forward

    def wrong(*args, use_cache=None, **named):
        out = plain(*args, use_cache=use_cache, **named)
        if use_cache:
            out.logits = out.logits.flip(-1)
        return out

    wrong.__signature__ = forks.inspect.signature(plain)
    monkeypatch.setattr(model, "forward", wrong)
    with pytest.raises(CannotSample, match="differ from its own forward pass"):
        probe(model)
