"""Control tokens that texts spell out: a server that reads them as tokens would end a turn where a document says so."""

import re

# The forms that models of today give them: <|im_start|>, <｜User｜>, <|turn>, [|user|], <start_of_turn>, [INST], <s>,
# <think>, places for images. Blanks behind the bracket count as part of it, so that a break can be taken back.
_ANGLE = r"""<\ *(?:
        [|｜][^\s<>|｜]{1,60}[|｜]?>
      | [A-Za-z_]{1,60}[|｜]>
      | /?(?:s|bos|eos|pad|unk|mask|cls|sep|think|tool_call|tool_response|image|video|audio)>
      | (?:start|end)_of_[a-z_]{1,40}>
      | (?:BOS|EOS|PAD|UNK|MASK|CLS|SEP)_TOKEN>
      | (?:unused|reserved_|seed:|mask:|extra_id_)[\w:]{1,40}>
    )"""
_SQUARE = r"""\[\ *(?:
        \|[^\s\[\]|]{1,60}\|\]
      | /?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CALLS|TOOL_CONTENT|ARGS|CALL_ID|THINK|IMG|BEGIN_TOOL
            |PREFIX|MIDDLE|SUFFIX|CLS|SEP|MASK|PAD|UNK|BOS|EOS)\]
      | e~\[
    )"""
_CLOSING = r"""\]\ *~!?b[\[\]]"""
_CONTROL = re.compile(f"{_ANGLE} | {_SQUARE} | {_CLOSING}", re.VERBOSE)
# Each begins with one character, which `re` seeks five times as fast as any of three, and `in` ten times as fast again.
_BY_BRACKET = {
    bracket: re.compile(pattern, re.VERBOSE) for bracket, pattern in (("<", _ANGLE), ("[", _SQUARE), ("]", _CLOSING))
}


def break_control_tokens(text: str) -> str:
    """Return a text in which no control token is spelled out: behind the bracket of each stands one more space.

    What is broken is known again: one space less behind the bracket is the text as it was.
    """
    return _CONTROL.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)


def count_control_tokens(text: str) -> int:
    """Return by how many bytes at most `text` grows when its control tokens are broken; 0 only where it has none."""
    return sum(len(pattern.findall(text)) for bracket, pattern in _BY_BRACKET.items() if bracket in text)
