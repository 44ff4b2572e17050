"""Thoughts of a model, parted from its answer: common tags, special tokens, channels and headings."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_WORD = (
    r"(?:(?:thinking|thought|reasoning)[ _-]?(?:process|block|steps?)|chain[ _-]?of[ _-]?thoughts?|cot|think(?:ing)?"
    r"|think_never_used_\w{8,64}|thoughts?|reason(?:ing)?|rationale|reflect(?:ion)?|analysis|deliberation|planning"
    r"|scratch[ _-]?pad|(?:(?:inner|internal)[ _-]?)?monologue|(?:inner|internal)[ _-]?thoughts?|思索"
    r"|思考(?:过程|過程)?)"
)
_OPEN, _SHUT = r"(?:[<＜]|&lt;)", r"(?:[>＞]|&gt;)"  # some servers escape what looks like HTML
_BAR = r"[|｜]"
_JOIN = r"[ _▁-]?"
_THINKING = r"(?:thought|think(?:ing)?|reasoning)"
# Opening and closing marks, each with a name of its own by which the two find each other.
_TAG = re.compile(
    rf"{_OPEN}(?P<end>\s?[/\\])?\s?(?P<tag>(?:[a-z]{{1,16}}[:_.-]?)?{_WORD})(?:\s[^<>\n]{{0,100}}?)?{_SHUT}"
    rf"|[\[【](?P<square_end>/|end )?(?:begin |start )?(?P<square>think(?:ing)?|thoughts?|reasoning|思考)[\]】]"
    rf"|◁(?P<diamond_end>/)?(?P<diamond>think(?:ing)?)▷"
    rf"|<{_BAR}(?P<token_end>(?:/|end{_JOIN}(?:of{_JOIN})?){_THINKING}"
    rf"|{_THINKING}{_JOIN}end|inner_suffix){_BAR}>"
    rf"|<{_BAR}(?P<token>(?:(?:begin|start){_JOIN}(?:of{_JOIN})?)?{_THINKING}(?:{_JOIN}start)?"
    rf"|inner_prefix){_BAR}>"
    r"|(?P<gemma><unused94>(?:thought\b)?|<\|channel>\s?(?:thought|analysis)\b)|(?P<gemma_end><unused95>|<channel\|>)",
    re.IGNORECASE,
)
_CHANNEL = re.compile(r"<\|channel\|>\s?(?P<name>[a-z]{1,20})[^<>]{0,200}<\|message\|>", re.IGNORECASE)
_CHANNEL_END = re.compile(
    r"<\|(?:start\|>(?:assistant)?|(?:end|return|call|channel|im_end|endoftext)\|>)", re.IGNORECASE
)
_PLAIN_CHANNEL = re.compile(r"\s*(?:assistant)?analysis(?=[A-Z\u4e00-\u9fff])")  # without its special tokens
_PLAIN_FINAL = "assistantfinal"
_HEADING = re.compile(r"\W{0,8}here(?:['’]s| is) my (?:thought|thinking|reasoning) process\b", re.IGNORECASE)
# Other frames of a thought that begins a reply, and what ends it: a page's fold, a block of code, a turn of its own.
_FRAMES = (
    (re.compile(r"\s*<details\s[^<>\n]{0,100}?type=[\"']?reasoning[^<>\n]{0,100}>"), re.compile(r"</details>")),
    (re.compile(r"\s*```(?:think(?:ing)?|thoughts?|reasoning)[^\S\n]*\n"), re.compile(r"^```[^\S\n]*$", re.MULTILINE)),
    (
        re.compile(r"\s*<\|im_start\|>\s?think(?:ing)?\b"),
        re.compile(r"(?:<\|im_end\|>\s{0,9})?<\|im_start\|>\s?(?:answer|assistant)\b"),
    ),
)
_ANSWER_HEADING = re.compile(r"here(?:['’]s| is) my (?:response|answer)\b\W{0,4}", re.IGNORECASE)
_ANSWER_TOKEN = re.compile(
    rf"<{_BAR}(?:(?:begin|end)_of_(?:solution|answer|box)|(?:start|end)_(?:response|answer)){_BAR}>", re.IGNORECASE
)
_WRAPPED = re.compile(
    r"<(?P<name>answer|response|output|final|final_answer)>(?P<text>.*)</(?P=name)>", re.IGNORECASE | re.DOTALL
)
LONGEST_REPLY = 400_000  # characters that a parser reads: some 100,000 tokens
_QUOTES = "`\"'“”‘’"


@dataclass(frozen=True, kw_only=True)
class Thoughts:
    """A reply taken apart."""

    thought: str
    answer: str
    closed: bool = True  # False: the reply ends within a thought


def split_thoughts(text: str) -> Thoughts:
    """Part the thoughts of a reply from its answer; a reply without thoughts is its own answer, unchanged.

    A closing mark without an opening one ends a thought that the prompt has opened. Marks in quotes are spoken of,
    not used. Takes time in proportion to the length of `text`.
    """
    if _CHANNEL.search(text):
        parted = _split_channels(text)
    elif _PLAIN_CHANNEL.match(text):
        thought, mark, answer = text.rpartition(_PLAIN_FINAL)
        parted = Thoughts(thought=thought if mark else text, answer=answer if mark else "", closed=bool(mark))
    elif _HEADING.match(text):
        heading = _ANSWER_HEADING.search(text)
        start, end = heading.span() if heading else (len(text), len(text))
        parted = Thoughts(thought=text[:start], answer=text[end:], closed=heading is not None)
    elif framed := _split_frame(text):
        parted = framed
    else:
        tags = [tag for tag in _TAG.finditer(text) if not _is_quoted(text, tag)]
        if not tags and not _ANSWER_TOKEN.search(text):
            return Thoughts(thought="", answer=text)
        parted = _split_tags(text, tags)
    return Thoughts(thought=parted.thought.strip(), answer=_unwrap(parted.answer), closed=parted.closed)


def _unwrap(answer: str) -> str:
    answer = _ANSWER_TOKEN.sub("", answer).strip()
    wrapped = _WRAPPED.fullmatch(answer)
    return wrapped["text"].strip() if wrapped else answer


def _split_frame(text: str) -> Thoughts | None:
    for opening, closing in _FRAMES:
        if opened := opening.match(text):
            end = closing.search(text, opened.end())
            thought = text[opened.end() : end.start() if end else len(text)]
            answer = text[end.end() :].strip().removesuffix("<|im_end|>") if end else ""
            return Thoughts(thought=thought, answer=answer, closed=end is not None)
    return None


def _split_channels(text: str) -> Thoughts:
    """OpenAI's harmony: each message names its channel, and the final one alone is the answer."""
    heads = list(_CHANNEL.finditer(text))
    thoughts, answer = [text[: heads[0].start()]], None
    for head, end in zip(heads, [*(head.start() for head in heads[1:]), len(text)], strict=True):
        close = _CHANNEL_END.search(text, head.end(), end)
        message = text[head.end() : close.start() if close else end]
        if head["name"].casefold() == "final":
            answer = message
        else:
            thoughts.append(message)
    thought = _CHANNEL_END.sub("", "\n".join(thoughts))
    return Thoughts(thought=thought, answer=answer or "", closed=answer is not None)


def _split_tags(text: str, tags: Sequence[re.Match[str]]) -> Thoughts:
    last_close = max((tag.start() for tag in tags if _is_close(tag)), default=-1)
    thoughts: list[str] = []
    answers: list[str] = []
    open_: dict[str, None] = {}  # names of the thoughts that are open, the outermost first
    offset = 0
    for tag in tags:
        name = _name(tag)
        if not _is_close(tag):
            if not open_:
                if tag.start() > last_close and not _begins_line(text, tag.start()):
                    continue  # a word in a sentence: nothing closes it
                answers.append(text[offset : tag.start()])
                offset = tag.end()
            open_[name] = None
            continue
        if open_:
            # Closes those within it too; all of them where none has the name, a model's slip.
            while open_ and open_.popitem()[0] != name:
                pass
        else:  # opened by the prompt
            thoughts += answers
            answers.clear()
        if not open_:
            thoughts.append(text[offset : tag.start()])
            offset = tag.end()
    (thoughts if open_ else answers).append(text[offset:])
    return Thoughts(thought="\n".join(thoughts), answer="".join(answers), closed=not open_)


def _is_close(tag: re.Match[str]) -> bool:
    return any(tag[group] for group in ("end", "square_end", "diamond_end", "token_end", "gemma_end"))


def _name(tag: re.Match[str]) -> str:
    if tag["tag"]:
        return tag["tag"].casefold()
    return "square" if tag["square"] else "diamond" if tag["diamond"] else "gemma" if tag["gemma"] else "token"


def _is_quoted(text: str, tag: re.Match[str]) -> bool:
    before, after = text[tag.start() - 1 : tag.start()], text[tag.end() : tag.end() + 1]
    return bool(before and after) and before in _QUOTES and after in _QUOTES


def _begins_line(text: str, at: int) -> bool:
    before = text[max(0, at - 20) : at].rstrip(" \t")
    return not before or before.endswith("\n")
