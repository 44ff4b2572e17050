"""What a chat template makes of a response: where it ends the turn, and whether it leaves the words as they are."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from lrq.policy.folder import base_of
from lrq.trainer.rows import PreferenceRow

ANSWER = "Q7Z"  # letters that no template writes


@dataclass(frozen=True, kw_only=True)
class TurnEnd:
    """The token after which an assistant's turn is over."""

    token: int | None = None  # None: neither template nor tokenizer know any
    is_written: bool = True  # by the template itself


def turn_end(tokenizer: Any, ends: Collection[int] = ()) -> TurnEnd:
    """Return where the template ends a turn, by asking it.

    Where it does so only by opening the next (GLM), it is that token if it is among `ends`, else the tokenizer's end.
    """
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": ANSWER}]
    end = getattr(tokenizer, "eos_token_id", None)
    alone = _tokens_after_answer(tokenizer, chat)
    if alone is None:
        return TurnEnd(token=end)
    if alone:
        return TurnEnd(token=alone[0])
    followed = _tokens_after_answer(tokenizer, [*chat, {"role": "user", "content": "b"}])
    next_end = next((token for token in followed or () if token in ends), end)
    return TurnEnd(token=next_end, is_written=False)


def _tokens_after_answer(tokenizer: Any, chat: Sequence[dict[str, str]]) -> list[int] | None:
    """Return the control tokens that the template writes behind the answer; None: it cannot be asked."""
    try:
        text = tokenizer.apply_chat_template(chat, tokenize=False)
    except Exception:  # a template is a program: it raises what it likes
        return None
    _, answer, tail = text.rpartition(ANSWER)
    if not answer:
        return None
    control = {getattr(tokenizer, "eos_token_id", None), *getattr(tokenizer, "added_tokens_decoder", ())}
    [ids] = tokenizer([tail], add_special_tokens=False)["input_ids"]
    return [token for token in ids if token in control]


def end_tokens_of(folder: Any, tokenizer: Any) -> frozenset[int]:
    """Return the ids that end a response: those of the generation settings in `folder`, and the tokenizer's own.

    Of an adapter the generation settings are its base's.
    """
    path = (base_of(folder) or folder) / "generation_config.json"
    eos = orjson.loads(path.read_bytes()).get("eos_token_id") if path.exists() else None
    several = eos if isinstance(eos, list) else [eos]
    return frozenset(token for token in (*several, tokenizer.eos_token_id) if token is not None)


def change_by_template(row: PreferenceRow, prompt: str, chats: Sequence[str], tokenizer: Any) -> str:
    """Say what the template does to a conversational row that its policy never saw; empty: nothing.

    `prompt` is the rendered prompt, `chats` prompt and response rendered, chosen then rejected.
    """
    for side, chat in zip(row.sides, chats, strict=True):
        message = getattr(row, side)[0]
        if not chat.startswith(prompt):
            return "the prompt is rendered otherwise once it is answered"
        content = message.get("content")
        called = [call.get("function", call).get("name", "") for call in message.get("tool_calls") or ()]
        if any(name not in chat[len(prompt) :] for name in called):
            return "a tool call is left out"
        if message["role"] != "assistant" or not content or chat.startswith(content, len(prompt)):
            continue
        written, rendered = tokenizer([content, chat[len(prompt) :]], add_special_tokens=False)["input_ids"]
        if rendered[: len(written)] != written:
            return "thoughts or white space of a response are rendered otherwise"
    return ""
