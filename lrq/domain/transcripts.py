"""Transcripts as published for training a judge: EvalYaks' instructions, a conversation and its scores in one text.

The data set's conversations are JSON with brackets, commas and quotes missing or doubled, and its scores Python
dictionaries (arXiv 2408.12226): turns are told apart by the names of their speakers.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

_END_OF_PROMPT = "[/INST]"
_HEADER = re.compile(r"\bConversation[ \t]*:?[ \t]*$", re.MULTILINE)
_MATERIAL = re.compile(r"^[ \t]*Photo Descriptions[ \t]*:[ \t]*$", re.MULTILINE)
_SPEAKER = re.compile(r'"?\b(Examiner|Candidate|Partner)"\s*:\s*"?')
_BARE_QUOTE = re.compile(r'(?<!\\)"')
_BRACKETS = ' \t\r\n,"{}[]'


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """What a text holds of a scored conversation; empty where it has none."""

    turns: tuple[Mapping[str, str], ...]  # {"speaker": …, "text": …}
    material: str  # what the speakers look at: descriptions of photos
    scores: str  # as written after the prompt


def read_transcript(text: str) -> Transcript:
    """Return turns, material and scores of `text`: a prompt, [/INST], and the reply that is expected."""
    prompt, _, reply = text.rpartition(_END_OF_PROMPT)
    header = None
    for header in _HEADER.finditer(prompt):  # noqa: B007 - the last one counts
        pass
    conversation = prompt[header.end() :] if header else ""
    before = prompt[: header.start()] if header else ""
    material = _MATERIAL.search(before)
    speakers = list(_SPEAKER.finditer(conversation))
    ends = [*(speaker.start() for speaker in speakers), len(conversation)][1:]
    turns = [
        (speaker[1], conversation[speaker.end() : end].rstrip(_BRACKETS))
        for speaker, end in zip(speakers, ends, strict=True)
    ]
    return Transcript(
        turns=tuple({"speaker": name, "text": _unescaped(words)} for name, words in turns if words),
        material=before[material.end() :].strip(" \t\r\n_") if material else "",
        scores=reply.replace("</s>", "").strip(),
    )


def _unescaped(text: str) -> str:
    quoted = _BARE_QUOTE.sub(r"\"", text)
    try:
        return str(json.loads(f'"{quoted}"', strict=False))
    except ValueError:  # a backslash that escapes nothing
        return text
