"""Loading a policy's tokenizer, which needs no torch: no code from the folder, nothing from the network."""

from pathlib import Path
from typing import Any

from lrq.domain.errors import UsageError
from lrq.policy.folder import tokenizer_folder

_BROKEN = (OSError, ValueError, KeyError, RuntimeError)  # what transformers raises for a folder it cannot use


def load_tokenizer(folder: Path) -> Any:
    """Load the folder's tokenizer, of an adapter that has none its base's.

    Raises UsageError where there is none, or it has no chat template.
    """
    from transformers import AutoTokenizer  # noqa: PLC0415 - a process may hide torch from it first

    folder = tokenizer_folder(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except _BROKEN as error:
        words = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"{folder} holds no tokenizer that can be loaded: {words}") from None
    if not tokenizer.chat_template:
        raise UsageError(f"{folder} has no chat template; add chat_template.jinja, or name a chat model")
    return tokenizer
