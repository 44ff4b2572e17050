"""Ends of turns, token ids as they were drawn, and what a chat template changes."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tokenizers")

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from lrq.policy.fingerprint import tokenizer_fingerprint
from lrq.trainer.job import TrainJob
from lrq.trainer.rows import BadRow, PreferenceRow, read_row
from lrq.trainer.tokens import Chat, Tally, encode, render, tokenize
from lrq.trainer.turns import turn_end

SPPO_ROW = json.loads((Path(__file__).parents[1] / "golden" / "sppo_rows.json").read_text())
CONTROL = ("<s>", "</s>", "<|user|>", "<|assistant|>", "<|end|>")
PLAIN = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
OPEN = PLAIN.replace("<|end|>", "")  # a turn ends where the next begins
TRIMS = PLAIN.replace("m.content", "m.content | trim")
FORGETS = PLAIN.replace("m.content", "m.content.split('</think>')[-1]")


def tokenizer(template: str, *, adds_end: bool = False, end: str = "</s>") -> PreTrainedTokenizerFast:
    """Letters as tokens, control tokens, and a start that is added to a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE({letter: n for n, letter in enumerate(alphabet)}, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens([AddedToken(token, special=True) for token in CONTROL])
    ids = [(token, raw.token_to_id(token)) for token in ("<s>", "</s>")]
    raw.post_processor = processors.TemplateProcessing(single="<s> $A" + " </s>" * adds_end, special_tokens=ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token=end, pad_token="</s>", chat_template=template
    )


def row(answer: str = "yes", other: str = "no", **known: Any) -> dict[str, Any]:
    sides = {"prompt": ("user", "why?"), "chosen": ("assistant", answer), "rejected": ("assistant", other)}
    return {**{name: [{"role": role, "content": text}] for name, (role, text) in sides.items()}, **known}


def read(data: dict[str, Any]) -> PreferenceRow:
    found = read_row(data, 1)
    assert isinstance(found, PreferenceRow), found
    return found


def tokens(
    data: dict[str, Any], template: str = PLAIN, *, reads_control_tokens: bool = False, **known: Any
) -> dict[str, str]:
    """Prompt, chosen and rejected with their control tokens, joined."""
    made = tokenizer(template, **known)
    chat = Chat(made, reads_control_tokens=reads_control_tokens)
    [ids] = encode([render(read(data), chat)], chat)
    return {name.removesuffix("_ids"): made.decode(part) for name, part in ids.items()}


def preflight(
    data: list[dict[str, Any]], template: str, folder: Path, **settings: Any
) -> tuple[Tally, PreTrainedTokenizerFast]:
    made = tokenizer(template)
    job = TrainJob(model=folder, rows=folder, output=folder, **settings)
    return tokenize(
        [read_row(each, n) for n, each in enumerate(data, 1)], made, job, model="m", target=folder / "r"
    ), made


@pytest.mark.parametrize(
    ("template", "ends", "token", "is_written"),
    [(PLAIN, (), "<|end|>", True), (OPEN, ("<|user|>", "</s>"), "<|user|>", False), (OPEN, ("</s>",), "</s>", False)],
)
def test_the_template_is_asked_how_a_turn_ends(
    template: str, ends: tuple[str, ...], token: str, is_written: bool
) -> None:
    """By a token of its own; else by the next turn's if that is among the model's ends, else by the tokenizer's."""
    made = tokenizer(template)
    end = turn_end(made, {made.convert_tokens_to_ids(name) for name in ends})
    assert (made.convert_ids_to_tokens(end.token), end.is_written) == (token, is_written)


def test_a_template_without_an_end_gets_it_added() -> None:
    """The end token that a policy draws is trained, once."""
    assert tokens(row(), OPEN)["chosen"] == "yes</s>"
    assert tokens(row(), PLAIN)["chosen"] == "yes<|end|>"


@pytest.mark.parametrize("template", [PLAIN, OPEN])
def test_a_response_that_was_cut_off_gets_no_end(template: str) -> None:
    """Only the side that the row names stays open."""
    made = tokens(row(chosen_finish="length", rejected_finish="stop"), template)
    assert (made["chosen"], made["rejected"][:3]) == ("yes", "no<")
    text = {"prompt": "why?", "chosen": "yes", "rejected": "no", "chosen_finish": "length"}
    assert (tokens(text)["chosen"], tokens(text)["rejected"]) == ("yes", "no</s>")


def test_a_text_has_one_start_and_one_end() -> None:
    """Whether they stand in the text, are added by the tokenizer, or both."""
    text = {"prompt": "<s>why?", "chosen": "yes</s>", "rejected": "no"}
    made = tokens(text, reads_control_tokens=True)
    assert made == {"prompt": "<s>why?", "chosen": "yes</s>", "rejected": "no</s>"}
    text["prompt"] = "why?"
    assert tokens(text, adds_end=True) == {"prompt": "<s>why?", "chosen": "yes</s>", "rejected": "no</s>"}


def test_a_chat_that_was_rendered_before_has_one_start_and_one_end() -> None:
    """SPPO's code adds both once more."""
    once = {name: SPPO_ROW[name].replace("<s><s>", "<s>").replace("</s></s>", "</s>") for name in ("text", "labelled")}
    prompt = once["text"].removesuffix(once["labelled"])
    row = {"prompt": prompt, "chosen": once["labelled"], "rejected": "no"}
    made = tokens(row, adds_end=True, reads_control_tokens=True)
    assert (made["prompt"] + made["chosen"], made["chosen"]) == (once["text"], once["labelled"])


def test_responses_are_never_cut(tmp_path: Path) -> None:
    """Of too long a pair the prompt gives way, in its middle, and the pair is dropped where that is not enough.

    SPPO's code cuts the prompt at its end, and then the responses.
    """
    golden = SPPO_ROW["truncation"]
    letters = {name: name[0] * golden[f"{name}_chars"] for name in ("prompt", "chosen", "rejected")}
    assert len(golden["chosen"]) == golden["max_length"] < len(letters["chosen"]), "what is published is cut"
    tally, _ = preflight([letters], PLAIN, tmp_path, max_length=golden["max_length"])
    assert (tally.dropped, tally.lengths) == (1, [])
    long = {**letters, "prompt": "p" * 100}
    tally, made = preflight([long], PLAIN, tmp_path, max_length=60)
    [[prompt, chosen, rejected]] = stored(tmp_path)
    assert (tally.cut, len(prompt) + len(chosen)) == (1, 60)
    assert made.decode(chosen) == letters["chosen"] + "</s>"
    assert made.decode(rejected) == golden["rejected"].lstrip("p").replace("d", "r")


def test_contents_in_parts_are_joined() -> None:
    """A list of text parts is the text; an image is no text and sets the row aside with its reason."""
    parts = [{"role": "assistant", "content": [{"type": "text", "text": "y"}, {"type": "text", "text": "es"}]}]
    assert tokens({**row(), "chosen": parts})["chosen"] == "yes<|end|>"
    image = [{"role": "user", "content": [{"type": "image", "image": "x.png"}]}]
    found = read_row({**row(), "prompt": image}, 1)
    assert isinstance(found, BadRow)
    assert "part of type 'image'" in found.reason


def test_a_prompt_without_a_value_is_the_common_beginning() -> None:
    """A table has the column for all rows."""
    both = {"prompt": None, "chosen": "The sky is blue", "rejected": "The sky is brown"}
    assert read(both).prompt == "The sky is"


def test_drawn_tokens_are_trained_as_they_are(tmp_path: Path) -> None:
    """No template touches them, though the texts would come out otherwise; nothing is said of such rows."""
    made = tokenizer(FORGETS)
    drawn = {f"{name}_ids": made.encode(text, add_special_tokens=False) for name, text in DRAWN.items()}
    data = row("a</think>yes", "b</think>no", **drawn, tokenizer=tokenizer_fingerprint(made))
    tally, _ = preflight([data], FORGETS, tmp_path)
    assert (len(tally.lengths), list(tally.notes())) == (1, [])
    assert stored(tmp_path) == [[drawn[f"{name}_ids"] for name in DRAWN]]


DRAWN = {"prompt": "<|user|>why?<|assistant|>", "chosen": "a</think>yes<|end|>", "rejected": "b</think>n"}


def stored(folder: Path) -> list[list[list[int]]]:
    import pyarrow as pa  # noqa: PLC0415

    with pa.memory_map(str(folder / "r")) as source:
        rows = pa.ipc.open_stream(source).read_all().to_pylist()
    return [[each[f"{name}_ids"] for name in DRAWN] for each in rows]


def test_the_tokens_of_another_tokenizer_are_rendered_anew(tmp_path: Path) -> None:
    """One line says so; a row that has no texts beside them is set aside."""
    ids = {"prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [4]}
    data = [row(**ids, tokenizer="another"), {**ids, "tokenizer": "another"}, ids]
    tally, made = preflight(data, PLAIN, tmp_path)
    assert list(tally.notes()) == ["line 1: its token ids are another tokenizer's, so its texts are rendered"]
    assert tally.reasons == ["line 2 has token ids of another tokenizer and no texts"]
    rendered, as_given = stored(tmp_path)
    assert made.decode(rendered[1]) == "yes<|end|>"
    assert as_given == [[1, 2], [3], [4]]


@pytest.mark.parametrize(
    ("data", "template", "words"),
    [
        (row(" yes"), TRIMS, "thoughts or white space"),
        (row("I think</think>yes"), FORGETS, "thoughts or white space"),
        (row(), PLAIN.replace("<|assistant|>{% endif", "<|assistant|>x{% endif"), "rendered otherwise once"),
        (
            {**row(), "chosen": [{"role": "assistant", "tool_calls": [{"function": {"name": "look"}}]}]},
            PLAIN,
            "a tool call is left out",
        ),
    ],
)
def test_what_a_template_changes_is_named_with_its_line(
    tmp_path: Path, data: dict[str, Any], template: str, words: str
) -> None:
    """Trained as rendered, and said: the policy cannot have written it like this."""
    tally, _ = preflight([data, row()], template, tmp_path)
    [note] = tally.notes()
    assert words in note
    assert note.startswith(("line 1: ", "2 rows (line 1 first): "))
