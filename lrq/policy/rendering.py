"""A chat as the policy reads it: the prompt's token ids, the tokens that end a turn, and what was written as text."""

import hashlib
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from jinja2 import TemplateError

from lrq.domain.errors import UsageError
from lrq.domain.records import Message
from lrq.domain.time_limit import Overtime, time_limit
from lrq.policy.messages import TOKENS, messages_of
from lrq.policy.port import CHAT_TEMPLATE
from lrq.policy.thoughts import Written, open_mark, split_thought

Tokenizer = Any  # transformers.PreTrainedTokenizerBase

LONGEST_RENDERING = 300.0  # seconds for one prompt; a document of 10 MB takes ten on a slow machine

_NOW = re.compile(r"""strftime_now\(\s*(["'])(?P<format>[^"']*)\1\s*\)""")
_DATE_STRING = re.compile(r"""set\s+date_string\s*=\s*strftime_now\(\s*(["'])(?P<format>[^"']*)\1\s*\)""")
_WORD = "word"  # a message without anything that a template might read
_NO_END = re.compile(r"END_(RESPONSE|TEXT)")  # closes a part of a turn, not the turn


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """A tokenizer with the settings of its chat template.

    `at`: seconds since 1970 that the template takes for now, so that the same prompt is rendered tomorrow; None: now.
    """

    tokenizer: Tokenizer
    template: Mapping[str, Any]  # enable_thinking and the like
    at: float | None = None

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the token ids of a prompt of `messages`, up to where the answer begins.

        Raises UsageError where the template refuses the messages, Overtime where it does not end.
        """
        return list(self._apply(messages, add_generation_prompt=True, **CHAT_TEMPLATE)["input_ids"])

    def text(self, messages: Sequence[Mapping[str, Any]], *, answer: bool = False) -> str:
        """Return a chat as text, with the beginning of an answer, or with `answer` where its last message is one."""
        return str(self._apply(messages, add_generation_prompt=not answer, tokenize=False))

    def _apply(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> Any:
        override = {"chat_template": self.template_text} if self.template_text != self.tokenizer.chat_template else {}
        chat = [self.message(message) for message in messages]
        try:
            with time_limit(LONGEST_RENDERING):
                return self.tokenizer.apply_chat_template(chat, **override, **dict(self.template), **options)
        except (TemplateError, TypeError, ValueError) as error:
            raise UsageError(f"the policy's chat template refuses the recipe's messages: {error}") from None

    def message(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Return a message in the form that the template reads: its content a text, or a list of parts."""
        if not self.takes_parts or not isinstance(message["content"], str):
            return dict(message)
        return {**message, "content": [{"type": "text", "text": message["content"]}]}

    @cached_property
    def takes_parts(self) -> bool:
        """Tell whether the template drops a message's text unless it comes as a part, as multimodal models' do."""
        chat = [{"role": "user", "content": _WORD}]
        try:
            return _WORD not in self.tokenizer.apply_chat_template(chat, tokenize=False, **dict(self.template))
        except (TemplateError, TypeError, ValueError):
            return False

    @cached_property
    def template_text(self) -> Any:
        """Return the chat template with its dates filled in; a table of several by name as it is."""
        now = datetime.now(UTC) if self.at is None else datetime.fromtimestamp(self.at, UTC)
        text = self.tokenizer.chat_template
        if not isinstance(text, str):
            return text
        return _NOW.sub(lambda match: repr(now.strftime(match["format"])), text)

    @cached_property
    def row_template(self) -> dict[str, Any]:
        """Return the template's arguments by which another reader of a row renders the same prompt."""
        arguments = {**CHAT_TEMPLATE, **self.template}
        text = self.tokenizer.chat_template
        dated = _DATE_STRING.search(text) if isinstance(text, str) else None
        if dated and self.at is not None and "date_string" not in arguments:
            arguments["date_string"] = datetime.fromtimestamp(self.at, UTC).strftime(dated["format"])
        return arguments

    @property
    def is_dated(self) -> bool:
        """Tell whether the template writes a date that no argument of it can set."""
        return self.template_text != self.tokenizer.chat_template and "date_string" not in self.row_template

    @cached_property
    def opened(self) -> str:
        """Return the mark of a thought in which every prompt ends; empty where none is opened."""
        return open_mark(self.text([{"role": "user", "content": _WORD}]))

    def describe(self, messages: Sequence[Message]) -> dict[str, Any]:
        """Return what is needed to render a prompt again, and to know whether it is the same."""
        return {
            "template": dict(self.template),
            "at": self.at,
            "opened": self.opened,
            "row_template": self.row_template,
            "dated": self.is_dated,
            "parts": self.takes_parts,
            "holds_tokens": self.holds_tokens(messages),
        }

    def end_ids(self) -> frozenset[int]:
        """Return the ids that the template writes after an answer: of its own end, or else of the next turn."""
        ask, answer = {"role": "user", "content": "ask"}, {"role": "assistant", "content": _WORD}
        for chat in ([ask, answer], [ask, answer, ask]):
            try:
                _, separator, after = self.text(chat, answer=True).rpartition(_WORD)
            except (UsageError, Overtime):
                continue
            tokens = [token for token in self._leading_tokens(after) if not _NO_END.search(token)] if separator else []
            if tokens:
                return frozenset({self.tokenizer.convert_tokens_to_ids(tokens[0])})
        return frozenset()

    def _leading_tokens(self, text: str) -> list[str]:
        """Return the control tokens that a text begins with, white space between them aside."""
        control_tokens = sorted(
            (str(token) for token in self.tokenizer.added_tokens_decoder.values()), key=len, reverse=True
        )
        leading: list[str] = []
        while token := next((control for control in control_tokens if text.lstrip().startswith(control)), None):
            leading.append(token)
            text = text.lstrip().removeprefix(token)
        return leading

    # ----- what was written

    def written(self, ids: Sequence[int]) -> str:
        """Return what was drawn as text, control tokens spelled out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))

    def split(self, ids: Sequence[int]) -> Written:
        """Part what was drawn, without its end, into thought and answer; of the answer the words alone."""
        parts = split_thought(self.written(ids), opened=self.opened)
        if not parts.thought and parts.is_closed and not self.opened:
            text = str(self.tokenizer.decode(list(ids), skip_special_tokens=True))
            is_whole = parts.answer == self.written(ids)
            return Written(thought="", answer=text if is_whole else self._words(parts.answer), is_closed=True)
        return Written(thought=parts.thought, answer=self._words(parts.answer).strip(), is_closed=parts.is_closed)

    def _words(self, text: str) -> str:
        """Return a text without the tokenizer's special tokens."""
        for token in self.tokenizer.all_special_tokens:
            text = text.replace(token, "")
        return text

    def form(self, ids: Sequence[int]) -> str:
        """Return the name of the message that renders to these very ids, an end token last; empty where none does.

        The name ends in TOKENS where the message holds control tokens, which a template must not spell as letters then.
        What it writes behind the end counts for nothing. The prompt's words do not matter to a template, so a short one
        stands for them.
        """
        ask = [{"role": "user", "content": _WORD}]
        expected = [*self.prompt_ids(ask), *ids]
        for name, message in messages_of(self.written(ids[:-1]), self.opened).items():
            for suffix, letters in (("", CHAT_TEMPLATE), (TOKENS, {})):
                try:
                    rendered = list(self._apply([*ask, message], **letters)["input_ids"])
                except UsageError:
                    break
                if rendered[: len(expected)] == expected:
                    return name + suffix
        return ""

    def holds_tokens(self, messages: Sequence[Message]) -> bool:
        """Tell whether a message holds the text of a control token, which has to stay letters."""
        tokens = [str(token) for token in self.tokenizer.added_tokens_decoder.values()]
        return any(token in message["content"] for message in messages for token in tokens)


def ids_hash(ids: Sequence[int]) -> str:
    """Return a hash of token ids, the same on every machine."""
    return hashlib.sha256(struct.pack(f"<{len(ids)}I", *ids)).hexdigest()
