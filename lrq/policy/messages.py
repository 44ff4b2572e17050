"""What was written, as the messages of an assistant; standard library only."""

from typing import Any

from lrq.policy.thoughts import split_thought

TOKENS = "+tokens"  # behind a message's name: it holds control tokens that are no letters


def messages_of(written: str, opened: str) -> dict[str, dict[str, Any]]:
    """Return the messages of an assistant that may stand for what was `written`, without its end, by their names.

    `content`: the text as it is; `opened`: with the mark that the prompt opened; `answer`: the answer alone; the
    others: the thought in a field of its own, by the names that chat templates read.
    """
    parts = split_thought(written, opened=opened)
    messages: dict[str, dict[str, Any]] = {"content": {"content": written}}
    if opened:
        messages["opened"] = {"content": f"{opened}\n{written}"}
    if parts.thought and parts.is_closed:
        fields = ("reasoning_content", "reasoning", "thinking")
        messages |= {name: {"content": parts.answer, name: parts.thought} for name in fields}
    if parts.is_closed and parts.answer != written:
        messages["answer"] = {"content": parts.answer}
    return {name: {"role": "assistant", **message} for name, message in messages.items()}
