"""The tokens of a row, as they were drawn: the prompt is rendered again and has to be the same."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lrq.ledger.items import DrawnResponse
from lrq.policy.messages import TOKENS, messages_of
from lrq.policy.port import CHAT_TEMPLATE


class Renderer(Protocol):
    """Renders prompts with the tokenizer that they were sampled with."""

    def tokens(self, pair: "DrawnPair", messages: Any) -> "Tokens | None":
        """Return the tokens of a row; None where the prompt's are not those that were sampled."""
        ...


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The prompt's token ids and the fingerprint of their tokenizer."""

    prompt: list[int]
    tokenizer: str


@dataclass(frozen=True, kw_only=True)
class DrawnPair:
    """What was drawn for one row; `rejected` is None for a demonstration."""

    chosen: DrawnResponse
    rejected: DrawnResponse | None
    rendering: Mapping[str, Any]  # of the prompt, as the policy tells it; empty: not known
    prompt_tokens: int = 0  # as the policy counted them

    @property
    def sides(self) -> dict[str, DrawnResponse]:
        """Chosen and rejected by name."""
        return {"chosen": self.chosen} | ({"rejected": self.rejected} if self.rejected else {})


def message(drawn: DrawnResponse, opened: str) -> dict[str, Any]:
    """Return the assistant's message that a chat template renders to what was drawn, as far as one does."""
    messages = messages_of(drawn.written, opened)
    return messages.get(drawn.form.removesuffix(TOKENS)) or messages["content"]


def template_arguments(pair: DrawnPair) -> dict[str, Any]:
    """Return the chat template's arguments by which the row renders to what was sampled, as far as they can.

    Control tokens in a document stay letters. Where a response holds some that it was drawn with, and no document
    does, that rule is left out, since it would make letters of those.
    """
    arguments = dict(pair.rendering.get("row_template") or CHAT_TEMPLATE)
    if _drawn_tokens(pair) and not pair.rendering.get("holds_tokens"):
        arguments = {name: value for name, value in arguments.items() if name not in CHAT_TEMPLATE}
    return arguments


def _drawn_tokens(pair: DrawnPair) -> bool:
    return any(response.form.endswith(TOKENS) for response in pair.sides.values())


def token_fields(pair: DrawnPair, prompt: Any, renderer: Renderer | None) -> dict[str, Any]:
    """Return prompt_ids, chosen_ids, rejected_ids and the tokenizer's fingerprint; nothing where one is not known."""
    if renderer is None or not pair.rendering or not all(response.ids for response in pair.sides.values()):
        return {}
    tokens = renderer.tokens(pair, prompt)
    if tokens is None:
        return {}
    fields = {f"{side}_ids": list(response.ids) for side, response in pair.sides.items()}
    return {"prompt_ids": tokens.prompt, **fields, "tokenizer": tokens.tokenizer}


def difference(pair: DrawnPair) -> str:
    """Say why stock TRL, which renders the messages again, would train other tokens; empty: it trains the same."""
    if pair.rendering.get("server"):
        return ""  # nobody knows its template
    for side, response in pair.sides.items():
        if not response.ids:
            continue  # no tokens are known that could differ
        if response.is_cut:
            return f"{side} was cut by max_new_tokens; TRL adds an end that was never drawn"
        if not response.form:
            return f"no message of the chat template renders to the tokens of {side}"
    if _drawn_tokens(pair) and pair.rendering.get("holds_tokens"):
        return "document and response both hold control tokens: TRL makes letters of all, or of none"
    return "the chat template writes today's date" if pair.rendering.get("dated") else ""


class FolderRenderer:
    """Renders with the tokenizer of a model folder, loaded when it is first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loaded: Any = None

    def tokens(self, pair: DrawnPair, messages: Any) -> Tokens | None:
        """Return the tokens where the folder's tokenizer and template give those that were sampled.

        Of a server's tokens neither tokenizer nor prompt are known: they count where this tokenizer reads the answer
        from them, and finds as many in the prompt as the server did.
        """
        from lrq.policy.fingerprint import tokenizer_fingerprint  # noqa: PLC0415  loads transformers
        from lrq.policy.rendering import Rendering, ids_hash  # noqa: PLC0415
        from lrq.policy.tokenizer import load_tokenizer  # noqa: PLC0415

        if self._loaded is None:
            tokenizer = load_tokenizer(self._folder)
            self._loaded = tokenizer, tokenizer_fingerprint(tokenizer)
        tokenizer, fingerprint = self._loaded
        rendered = pair.rendering
        ids = Rendering(tokenizer=tokenizer, template=rendered["template"], at=rendered["at"]).prompt_ids(messages)
        if rendered.get("server"):
            texts = [tokenizer.decode(list(response.ids), skip_special_tokens=True) for response in pair.sides.values()]
            read = all(response.text.strip() in text for response, text in zip(pair.sides.values(), texts, strict=True))
            is_same = read and len(ids) == pair.prompt_tokens
        else:
            is_same = rendered["tokenizer"] == fingerprint and rendered["ids_hash"] == ids_hash(ids)
        return Tokens(prompt=ids, tokenizer=fingerprint) if is_same else None
