"""Preflight: rows as token ids, with what is kept, cut, dropped and set aside."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lrq.domain.errors import UsageError
from lrq.policy.port import CHAT_TEMPLATE
from lrq.trainer.job import TrainJob
from lrq.trainer.job_folder import Preflight
from lrq.trainer.reference import response_key

pytest.importorskip("pyarrow")

from lrq.trainer.rows import PreferenceRow
from lrq.trainer.tally import Tally, check_dropped
from lrq.trainer.tokens import Chat, as_chat, cut_middle, encode, fits, render, tokenize

FILES = {"model": "m", "rows": "r", "output": "o"}


class LetterTokenizer:
    """One token per character; its template marks roles, and ends a prompt in a way no conversation goes on."""

    eos_token = "."

    def __call__(self, texts: list[str], *, add_special_tokens: bool) -> dict[str, list[list[int]]]:
        return {"input_ids": [[0] * add_special_tokens + [ord(letter) for letter in text] for text in texts]}

    def apply_chat_template(
        self, messages: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool = False
    ) -> str:
        assert not tokenize
        text = "".join(f"{message['role'][0]}{message['content']}." for message in messages)
        return text + "a?" * add_generation_prompt


def letters(ids: list[int]) -> str:
    return "".join(map(chr, ids))


def row(prompt: str, chosen: str = "yes", rejected: str = "no", *, chat: bool = False) -> PreferenceRow:
    if not chat:
        return PreferenceRow(line=1, prompt=prompt, chosen=chosen, rejected=rejected)
    user, yes, no = (
        [{"role": role, "content": text}]
        for role, text in (("user", prompt), ("assistant", chosen), ("assistant", rejected))
    )
    return PreferenceRow(line=1, prompt=user, chosen=yes, rejected=no)


def test_a_response_begins_where_the_conversation_leaves_the_prompt() -> None:
    """The end of a generation prompt that no conversation repeats is left out; plain texts get special tokens."""
    tokenizer = LetterTokenizer()
    rows = [row("why", chat=True), row("why"), row("how", "yes.", chat=False)]
    chat, plain, ended = encode([render(one, tokenizer) for one in rows], tokenizer)
    assert [letters(chat[name]) for name in ("prompt_ids", "chosen_ids", "rejected_ids")] == ["uwhy.a", "yes.", "no."]
    assert [letters(plain[name]) for name in ("prompt_ids", "chosen_ids", "rejected_ids")] == ["\0why", "yes.", "no."]
    assert letters(ended["chosen_ids"]) == "yes.", "an end that is there is not doubled"


@pytest.mark.parametrize(("room", "kept"), [(10, "0123456789"), (4, "0189"), (5, "01789"), (1, "9"), (9, "012356789")])
def test_a_cut_takes_the_middle(room: int, kept: str) -> None:
    """Beginning and end stay, the end keeps the odd token."""
    assert cut_middle(list("0123456789"), room) == list(kept)  # type: ignore[arg-type,comparison-overlap]


@pytest.mark.parametrize(
    ("max_length", "overlong", "prompt", "counted"),
    [
        (None, "cut", 30, (30, 0, 0)),
        (34, "cut", 30, (30, 0, 0)),  # 30 of prompt and 4 of the longer response
        (33, "cut", 30, (29, 1, 0)),
        (33, "drop", 30, (0, 0, 1)),
        (20, "cut", 30, (16, 1, 0)),  # just enough prompt left
        (19, "cut", 30, (0, 0, 1)),  # too little prompt left beside the response
    ],
)
def test_long_rows_are_cut_or_dropped(
    max_length: int | None, overlong: str, prompt: int, counted: tuple[int, int, int]
) -> None:
    """The prompt gives way, never a response; what leaves no prompt is dropped and counted."""
    job = TrainJob.model_validate({**FILES, "max_length": max_length, "overlong": overlong})
    ids = {"prompt_ids": [1] * prompt, "chosen_ids": [2] * 4, "rejected_ids": [3] * 2}
    tally = Tally()
    kept = fits(row("q"), ids, job, tally)
    assert (len(ids["prompt_ids"]) * kept, tally.cut, tally.dropped) == counted
    assert len(ids["chosen_ids"]) == 4


def test_rows_without_a_difference_are_set_aside() -> None:
    """Responses that come to the same tokens, or to none, teach nothing: a reason each, no crash."""
    job, tally = TrainJob.model_validate(FILES), Tally()
    assert not fits(row("q"), {"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [2]}, job, tally)
    assert not fits(row("q"), {"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": []}, job, tally)
    assert tally.set_aside == 2
    assert "'rejected'" in tally.preflight().reasons[1]


def test_lengths_are_told() -> None:
    """Least, median and most tokens, of each part and of prompt with the longer response."""
    tally = Tally(rows=3, lengths=[(10, 2, 3), (20, 5, 1), (90, 4, 4)])
    told = tally.preflight(model="m")
    assert (told.prompt.min, told.prompt.median, told.prompt.max) == (10, 20, 90)
    assert (told.total.min, told.total.median, told.total.max) == (13, 25, 94)
    assert told.kept == 3


@pytest.mark.parametrize(
    ("dropped", "rows", "allowed"), [(1, 100, True), (2, 100, False), (1, 99, False), (0, 1, True)]
)
def test_more_than_a_hundredth_dropped_is_an_error(dropped: int, rows: int, allowed: bool) -> None:
    """The error counts them and names the remedy; what was cut is not dropped."""
    preflight = Preflight(rows=rows, kept=rows - dropped, cut=rows - dropped, dropped=dropped)
    job = TrainJob.model_validate({**FILES, "max_length": 50, "overlong": "drop"})
    if allowed:
        check_dropped(preflight, job)
        return
    with pytest.raises(UsageError, match=f"{dropped} of {rows} rows .* max_length 50 .* set overlong=cut"):
        check_dropped(preflight, job)


def test_a_reference_is_known_by_model_prompt_and_response() -> None:
    """Any of the three changed, or a token moved from prompt to response, is another log-probability."""
    keys = {
        response_key("m", [1, 2], [3]),
        response_key("n", [1, 2], [3]),
        response_key("m", [1], [2, 3]),
        response_key("m", [1, 2], [4]),
        response_key("m", [1, 3], [3]),
    }
    assert len(keys) == 5
    assert response_key("m", [1, 2], [3]) == response_key("m", (1, 2), (3,))


def test_the_squared_loss_wants_rates() -> None:
    """Rows without win rates are set aside where the loss needs them, and only there."""
    ids = {"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3]}
    squared = TrainJob.model_validate({**FILES, "loss_type": ["sppo"], "loss_weights": [1]})
    tally = Tally()
    assert fits(row("q"), dict(ids), TrainJob.model_validate(FILES), tally)
    assert not fits(row("q"), dict(ids), squared, tally)
    assert "'p_w'" in tally.reasons[0]
    rated = PreferenceRow(line=1, prompt="q", chosen="a", rejected="b", p_w=0.8, p_l=0.0)
    assert fits(rated, dict(ids), squared, tally)


def chat_tokenizer() -> Any:
    """Words and special tokens apart, so that a document can only write the words."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = ["<unk>", "w1", "w2", "w3", "w4", "w5", "<eos", ">", "<"]
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", eos_token="<eos>")
    made.add_special_tokens({"additional_special_tokens": ["<user>", "<assistant>"]})
    made.chat_template = (
        "{% for m in messages %}<{{ m.role }}> {{ m.content }} {{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    return made


@pytest.mark.parametrize("prompt", ["w1 w2 w3", "w1 <eos> w2 <assistant> w3"])
def test_control_tokens_in_a_document_stay_plain_text_as_they_did_in_sampling(prompt: str) -> None:
    """The prompt's ids are those the policy was asked with, whether or not the document writes an end of turn."""
    tokenizer = chat_tokenizer()
    messages = [{"role": "user", "content": prompt}]
    asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, **CHAT_TEMPLATE)["input_ids"]
    pair = [[{"role": "assistant", "content": text}] for text in ("w4", "w5")]
    one = PreferenceRow(line=1, prompt=messages, chosen=pair[0], rejected=pair[1], template=dict(CHAT_TEMPLATE))
    (ids,) = encode([render(one, tokenizer)], tokenizer)
    assert ids["prompt_ids"] == list(asked)
    assert ids["prompt_ids"].count(tokenizer.eos_token_id) == 1, "the template's own"
    assert ids["chosen_ids"] != ids["rejected_ids"]


@pytest.mark.parametrize("rule", [{}, {"sanitize_control_tokens": False}])
def test_rows_from_elsewhere_close_no_turn_with_their_documents(rule: dict[str, bool]) -> None:
    """A prompt's control tokens are letters unless the row says otherwise; what a response writes is as it was."""
    tokenizer = chat_tokenizer()
    prompt = [{"role": "user", "content": "w1 <eos> w2 <assistant> w3"}]
    pair = [[{"role": "assistant", "content": text}] for text in ("w4 <user>", "w5")]
    one = PreferenceRow(line=1, prompt=prompt, chosen=pair[0], rejected=pair[1], template=rule)
    (ids,) = encode([render(one, tokenizer)], tokenizer)
    asked = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, **CHAT_TEMPLATE)["input_ids"]
    assert (ids["prompt_ids"] == list(asked)) is not rule
    assert ids["prompt_ids"].count(tokenizer.eos_token_id) == (2 if rule else 1)
    assert tokenizer.convert_tokens_to_ids("<user>") in ids["chosen_ids"]


CONTROL = "w1 <eos> w2 <assistant> w3"


@pytest.mark.parametrize("bos", [False, True])
def test_control_tokens_of_plain_rows_are_letters_unless_the_training_says_otherwise(bos: bool) -> None:
    """In prompt and responses, the end that is added aside; a row without any is read as ever."""
    tokenizer = chat_tokenizer()
    if bos:
        tokenizers = pytest.importorskip("tokenizers")
        tokenizer.bos_token = "<user>"
        user = tokenizer.convert_tokens_to_ids("<user>")
        start = tokenizers.processors.TemplateProcessing(single="<user> $A", special_tokens=[("<user>", user)])
        tokenizer.backend_tokenizer.post_processor = start
    first = [tokenizer.bos_token_id] * bos
    eos, control = tokenizer.eos_token_id, set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    one = PreferenceRow(line=1, prompt=CONTROL, chosen=" w4 <assistant> w5<eos>", rejected=" w5 <eos> w4", unended=())
    broken = render(one, tokenizer)
    (ids,) = encode([broken], tokenizer)
    assert broken.is_broken
    assert ids["prompt_ids"][: len(first)] == first
    assert not control & set(ids["prompt_ids"][len(first) :])
    for side in ("chosen_ids", "rejected_ids"):
        *response, last = ids[side]
        assert last == eos
        assert not control & set(response)
    (read,) = encode([render(one, Chat(tokenizer, (), True))], tokenizer)
    assert read["prompt_ids"] == tokenizer([CONTROL])["input_ids"][0]
    assert tokenizer.convert_tokens_to_ids("<assistant>") in read["chosen_ids"]
    assert read["chosen_ids"].count(eos) == 1
    cut = PreferenceRow(line=1, prompt=CONTROL, chosen=" w4 <eos>", rejected=" w5", unended=("chosen",))
    (open_,) = encode([render(cut, tokenizer)], tokenizer)
    assert (eos in open_["chosen_ids"], open_["rejected_ids"][-1]) == (False, eos)
    clean = PreferenceRow(line=1, prompt="w1 w2", chosen=" w4", rejected=" w5")
    assert render(clean, tokenizer).texts == render(clean, Chat(tokenizer, (), True)).texts


def test_a_template_reads_no_more_than_it_names() -> None:
    """An argument of a row that the template does not know goes nowhere, whatever later libraries make of it."""
    tokenizer = chat_tokenizer()
    tokenizer.chat_template = "{{ mood }}" + tokenizer.chat_template
    pair = [[{"role": "assistant", "content": text}] for text in ("w4", "w5")]
    template = {"mood": "w5", "no_such_argument_of_any_library": "w4"}
    prompt = [{"role": "user", "content": "w1"}]
    one = PreferenceRow(line=1, prompt=prompt, chosen=pair[0], rejected=pair[1], template=template)
    assert render(one, tokenizer).texts[0].startswith("w5<user>")
    assert as_chat(tokenizer).reads("mood")
    assert not as_chat(tokenizer).reads("no_such_argument_of_any_library")


def test_a_template_that_does_not_end_costs_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is stopped, the row is set aside with the reason, and the others are trained on."""
    monkeypatch.setattr("lrq.trainer.tokens.LONGEST_RENDERING", 0.3)
    tokenizer = chat_tokenizer()
    loops = "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3
    tokenizer.chat_template = "{% if messages[0].content == 'w1' %}" + loops + "{% endif %}" + tokenizer.chat_template
    rows = [
        PreferenceRow(
            line=line,
            prompt=[{"role": "user", "content": f"w{line}"}],
            chosen=[{"role": "assistant", "content": "w4"}],
            rejected=[{"role": "assistant", "content": "w5"}],
        )
        for line in (1, 2)
    ]
    tally = tokenize(rows, tokenizer, TrainJob.model_validate(FILES), model="m", target=tmp_path / "rows.arrow")
    assert (tally.rows, tally.set_aside, len(tally.lengths)) == (2, 1, 1)
    assert "did not end within 0.3 s" in tally.reasons[0]


HOLDING = """
import re, sys
from pathlib import Path
from unittest import mock
from lrq.trainer import tokens
from lrq.trainer.job import TrainJob
from lrq.trainer.rows import PreferenceRow

def hold(*_, **__):
    re.match("(a+)+$", "a" * 60 + "b")  # holds the interpreter: no thread of Python runs meanwhile

tokens.LONGEST_TOKENIZING = tokens.LONGEST_RENDERING = 0.5
folder = Path(sys.argv[2])
files = {"model": folder, "rows": folder / "r.jsonl", "output": folder / "out"}
rows = [PreferenceRow(line=7, prompt="q", chosen="a", rejected="b")]
tokens.render = mock.MagicMock()
with mock.patch.object(tokens, sys.argv[1], hold):
    tokens.tokenize(
        rows, mock.MagicMock(), TrainJob.model_validate(files), model="m", target=folder / "rows.arrow",
        overtime=folder / "overtime",
    )
"""


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ("encode", "the tokenizer did not end within 0.5 s on lines 7 to 7"),
        ("render", "the chat template did not end within 1 s on line 7"),
    ],
)
def test_what_holds_the_interpreter_ends_the_process(part: str, reason: str, tmp_path: Path) -> None:
    """Nothing of Python can stop it: the process is ended, and leaves which lines it was at."""
    command = [sys.executable, "-c", HOLDING, part, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, (tmp_path / "overtime").read_text()) == (1, reason), done.stderr
