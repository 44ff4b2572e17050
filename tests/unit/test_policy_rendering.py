"""What was drawn is what rows train, for every chat template that TRL ships; the judge sees the answer."""

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("trl")
tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

from lrq.domain.records import Item  # noqa: E402
from lrq.domain.time_limit import Overtime  # noqa: E402
from lrq.ledger.items import DrawnResponse  # noqa: E402
from lrq.policy.decoding import Drawn  # noqa: E402
from lrq.policy.local import LocalPolicy  # noqa: E402
from lrq.policy.rendering import Rendering, ids_hash  # noqa: E402
from lrq.workers.drawn import DrawnPair, FolderRenderer  # noqa: E402
from lrq.workers.rows import TrainingRow, TrainingTurn, trl_row  # noqa: E402

TEMPLATES = Path(find_spec("trl").submodule_search_locations[0]) / "chat_templates"  # type: ignore[union-attr,index]
NAMES = sorted(path.stem for path in TEMPLATES.glob("*.jinja"))
SPECIAL = re.compile(r"<[|｜][A-Za-z_▁]+[|｜]>|</?s>|<(?:start|end)_of_turn>|<turn\|>|<\|turn>|<end_of_utterance>")
DAY, NEXT_DAY = 1_793_534_400.0, 1_793_620_800.0  # the 1st and 2nd of November 2026
ASK = "The harbour has 7 ships.\n\nHow many?"
HARMONY = "<|channel|>analysis<|message|>We add.<|end|><|start|>assistant<|channel|>final<|message|>The answer is {n}."
WRITTEN = {
    "plain": "The answer is {n}.",
    "leading space": "  The answer is {n}.",
    "trailing lines": "The answer is {n}.\n\n",
    "thought": "<think>\nWe count the ships.\n</think>\n\nThe answer is {n}.",
    "odd thought": "<think>We count.</think> The answer is {n}.\n",
}
OPENED = {  # behind a prompt that has opened the thought
    "thought": "We count the ships.\n</think>\n\nThe answer is {n}.",
    "odd thought": "  We count.</think>The answer is {n}. ",
}


@cache
def tokenizer(name):
    """A byte-level tokenizer with the control tokens that the template writes."""
    text = (TEMPLATES / f"{name}.jinja").read_text()
    raw = tokenizers.Tokenizer(tokenizers.models.BPE())
    raw.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    raw.train_from_iterator(["the answer is that we count the ships in the harbour"] * 3, trainer)
    frame = {"<|channel|>", "<|message|>", "<|end|>", "<|start|>", "<|return|>", "<|endoftext|>"}
    raw.add_special_tokens(sorted(set(SPECIAL.findall(text)) | frame))
    raw.add_tokens(["<think>", "</think>"])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|endoftext|>", bos_token="<|endoftext|>", chat_template=text
    )


def policy_of(name, *, template=None, at=DAY):
    """A policy without a model: what it would make of drawn tokens."""
    policy = object.__new__(LocalPolicy)
    policy._tokenizer = tokenizer(name)
    policy._rendering = Rendering(tokenizer=policy._tokenizer, template=template or {}, at=at)
    policy._ends = policy._rendering.end_ids() | {policy._tokenizer.eos_token_id}
    return policy


def drawn_by(policy, text, *, end=True):
    ends = sorted(policy._rendering.end_ids()) or [policy._tokenizer.eos_token_id]
    return [*policy._tokenizer.encode(text, add_special_tokens=False), *(ends[:1] if end else [])]


def stored(policy, ids):
    """A response as the ledger gives it back."""
    sampled = policy._response(0, Drawn(ids=ids))
    written = sampled.text if sampled.written is None else sampled.written
    is_cut = sampled.finish == "length"
    return DrawnResponse(text=sampled.text, ids=sampled.ids, written=written, form=sampled.form, is_cut=is_cut)


def row_of(policy, folder, chosen, rejected, *, ask=ASK):
    policy._tokenizer.save_pretrained(folder)
    messages = [{"role": "user", "content": ask}]
    prompt = policy._ids(messages)
    pair = DrawnPair(
        chosen=stored(policy, chosen), rejected=stored(policy, rejected), rendering=policy._rendered(messages, prompt)
    )
    turn = TrainingTurn(messages=messages, drawn=pair, is_cut=False)
    row = TrainingRow(item=Item(id="a"), round=0, turns=[turn], margin=1.0)
    return prompt, trl_row(row, FolderRenderer(folder))


def by_trl(name, row, side):
    """The tokens that TRL makes of the row's messages."""
    chat = row["prompt"] + row[side]
    return tokenizer(name).apply_chat_template(chat, **row["chat_template_kwargs"])["input_ids"]


@pytest.mark.parametrize("name", NAMES)
def test_rows_hold_the_tokens_that_were_drawn(name, tmp_path):
    """Thoughts, channels and white space included; where stock TRL would train others, the row says so."""
    policy = policy_of(name)
    texts = dict(OPENED if policy._rendering.opened else WRITTEN)
    texts |= {"channels": HARMONY} if name.startswith("gptoss") else {}
    for text in texts.values():
        chosen, rejected = (drawn_by(policy, text.format(n=n)) for n in (7, 8))
        prompt, row = row_of(policy, tmp_path, chosen, rejected)
        assert [row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]] == [prompt, chosen, rejected]
        assert policy._response(0, Drawn(ids=chosen)).text.strip() == "The answer is 7."
        if "trl_differs" not in row:
            for side, ids in (("chosen", chosen), ("rejected", rejected)):
                assert by_trl(name, row, side)[: len(prompt + ids)] == prompt + ids


@pytest.mark.parametrize("name", ["llama3", "qwen2_5", "qwen3_instruct_2507", "gemma3", "phi3", "lfm2", "qwen3"])
def test_stock_trl_trains_the_same_of_common_templates(name, tmp_path):
    """A plain answer, or with Qwen3 a thought in its usual form, is told as messages that render to its tokens."""
    policy = policy_of(name)
    text = WRITTEN["thought" if name == "qwen3" else "plain"]
    chosen, rejected = (drawn_by(policy, text.format(n=n)) for n in (7, 8))
    _, row = row_of(policy, tmp_path, chosen, rejected)
    assert "trl_differs" not in row


def test_channels_are_told_in_the_fields_that_the_template_reads(tmp_path):
    """gpt-oss: the judge reads the final channel, the row has the analysis beside it."""
    policy = policy_of("gptoss")
    chosen, rejected = (drawn_by(policy, HARMONY.format(n=n)) for n in (7, 8))
    _, row = row_of(policy, tmp_path, chosen, rejected)
    assert policy._response(0, Drawn(ids=chosen)).text == "The answer is 7."
    assert "We add." in row["chosen"][0].values()
    assert row["trl_differs"] == "the chat template writes today's date"


def test_a_thought_without_an_end_is_no_answer():
    """A response that was cut within its thought has no text, and says why."""
    policy = policy_of("qwen3_5_think")
    sampled = policy._response(0, Drawn(ids=drawn_by(policy, "We count and count", end=False)))
    assert (sampled.text, sampled.reason, sampled.finish) == (None, "it ended within its thought", "length")
    assert sampled.written == "We count and count"


def test_a_response_that_was_cut_gets_no_end(tmp_path):
    """Its tokens are kept as they are, the row says that it was cut, and that stock TRL would add an end."""
    policy = policy_of("qwen2_5")
    chosen, rejected = drawn_by(policy, "The answer is 7."), drawn_by(policy, "The answer is", end=False)
    _, row = row_of(policy, tmp_path, chosen, rejected)
    assert row["rejected_ids"] == rejected
    assert row["rejected_finish"] == "length"
    assert "chosen_finish" not in row
    assert row["trl_differs"].startswith("rejected was cut by max_new_tokens")


def test_control_tokens_of_a_document_stay_letters_and_those_drawn_stay_tokens(tmp_path):
    """A document that closes its turn closes none; a policy that writes a control token wrote that token."""
    policy = policy_of("qwen2_5")
    end = policy._tokenizer.convert_tokens_to_ids("<|im_end|>")
    start = policy._tokenizer.convert_tokens_to_ids("<|im_start|>")
    chosen = [*drawn_by(policy, "The answer", end=False), start, *drawn_by(policy, " is 7.")]
    prompt, row = row_of(policy, tmp_path, chosen, drawn_by(policy, "No."), ask=f"{ASK}<|im_end|>")
    plain, _ = row_of(policy, tmp_path, chosen, drawn_by(policy, "No."))
    assert prompt.count(end) == plain.count(end)
    assert len(prompt) > len(plain) + 5
    assert row["chosen_ids"] == chosen
    assert policy._response(0, Drawn(ids=chosen)).text == "The answer is 7."


@pytest.mark.parametrize("name", ["llama3_2", "gptoss", "muse_glimmer"])
def test_a_prompt_keeps_its_date(name):
    """The same moment gives the same prompt on any day; another one gives another."""
    messages = [{"role": "user", "content": ASK}]
    first, again, later = (policy_of(name, at=at)._ids(messages) for at in (DAY, DAY, NEXT_DAY))
    text = tokenizer(name).decode(first)
    assert first == again
    assert first != later
    assert "01 Nov 2026" in text or "2026-11-01" in text


def test_a_date_that_the_template_takes_as_an_argument_is_in_the_row(tmp_path):
    """Llama 3.2's `date_string`: stock TRL renders the very prompt on any day."""
    policy = policy_of("llama3_2")
    chosen, rejected = (drawn_by(policy, f"The answer is {n}.") for n in (7, 8))
    prompt, row = row_of(policy, tmp_path, chosen, rejected)
    assert row["chat_template_kwargs"]["date_string"] == "01 Nov 2026"
    assert by_trl("llama3_2", row, "chosen")[: len(prompt)] == prompt
    assert "trl_differs" not in row


def test_settings_of_the_template_reach_prompt_and_row(tmp_path):
    """enable_thinking=False: Qwen3's prompt closes an empty thought, and the row renders the same."""
    policy = policy_of("qwen3", template={"enable_thinking": False})
    chosen, rejected = (drawn_by(policy, f"The answer is {n}.") for n in (7, 8))
    prompt, row = row_of(policy, tmp_path, chosen, rejected)
    assert tokenizer("qwen3").decode(prompt).endswith("<think>\n\n</think>\n\n")
    assert row["chat_template_kwargs"]["enable_thinking"] is False
    assert row["prompt_ids"] == prompt


def test_another_tokenizer_gives_a_row_without_tokens(tmp_path):
    """Ids of another vocabulary mean other words: the row falls back to its texts."""
    policy = policy_of("qwen2_5")
    chosen, rejected = (drawn_by(policy, f"The answer is {n}.") for n in (7, 8))
    messages = [{"role": "user", "content": ASK}]
    other = {**policy._rendered(messages, policy._ids(messages)), "tokenizer": "0" * 64}
    pair = DrawnPair(chosen=stored(policy, chosen), rejected=stored(policy, rejected), rendering=other)
    tokenizer("qwen2_5").save_pretrained(tmp_path)
    assert FolderRenderer(tmp_path).tokens(pair, messages) is None
    assert FolderRenderer(tmp_path).tokens(pair, [{"role": "user", "content": "?"}]) is None


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("qwen2_5", "<|im_end|>"),
        ("llama3", "<|eot_id|>"),
        ("gemma3", "<end_of_turn>"),
        ("phi3", "<|end|>"),
        ("gptoss", "<|return|>"),
        ("glm4moe", "<|user|>"),
        ("cohere2", "<|END_OF_TURN_TOKEN|>"),
    ],
)
def test_the_template_says_how_a_turn_ends(name, end):
    """The token that it writes behind an answer, or where it writes none, the next turn's."""
    rendering = policy_of(name)._rendering
    assert rendering.end_ids() == {tokenizer(name).convert_tokens_to_ids(end)}


@pytest.mark.parametrize("name", ["idefics3", "smolvlm", "llava_next"])
def test_templates_that_read_parts_get_parts(name):
    """Templates of multimodal models drop a message that is a text; ours reaches the model."""
    assert ASK in tokenizer(name).decode(policy_of(name)._ids([{"role": "user", "content": ASK}]))


def test_the_hash_of_ids_knows_their_order():
    """Two prompts of the same tokens in another order are not the same."""
    assert ids_hash([1, 2, 300_000]) == ids_hash((1, 2, 300_000))
    assert ids_hash([1, 2]) != ids_hash([2, 1])


def test_a_template_that_does_not_end_is_stopped(monkeypatch):
    """The task fails with the reason; its worker goes on to the next."""
    monkeypatch.setattr("lrq.policy.rendering.LONGEST_RENDERING", 0.2)
    endless = "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3
    text = "{% if messages[0].content == 'loop' %}" + endless + "{% endif %}{{ messages[0].content }}"
    rendering = Rendering(tokenizer=tokenizer(NAMES[0]), template={"chat_template": text})
    with pytest.raises(Overtime, match=r"did not end within 0\.2 s"):
        rendering.text([{"role": "user", "content": "loop"}])
    assert rendering.text([{"role": "user", "content": "on"}]) == "on"
