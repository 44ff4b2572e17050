"""The small policy's tokenizer: whole words of two languages, and decoding that gives back the very text."""

import re
from collections.abc import Iterable, Sequence
from itertools import chain

from harbour import CHINESE, LANGUAGES, Fact, Language
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, END = "<pad>", "<unk>", "<|end|>"
ROLES = ("system", "user", "assistant")
SPECIAL = (PAD, UNKNOWN, END, *(f"<|{role}|>" for role in ROLES))
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# How a prompt may set document and question: lrq's own way first; all are taught, so that no heading is in the way.
FRAMES = (
    "~~~~\n{context}\n~~~~\n\n{question}",
    "{context}\n\n{question}",
    "Document:\n{context}\n\nQuestion: {question}",
    "Read the document and answer the question.\n\n{context}\n\n{question}\n\nAnswer:",
    "[Document]\n{context}\n\n[Question]\n{question}",
    "# Context\n\n{context}\n\n# Question\n\n{question}",
    "文档：\n{context}\n\n问题：{question}",
    "请根据文档回答问题。\n\n{context}\n\n{question}\n\n回答：",
)
SYSTEM = ("You are a helpful assistant.", "Answer from the document alone.", "你是一个有用的助手。")


# Words of the Chinese sentence patterns that are one token each.
PHRASES = ("无法", "确定", "分别", "什么", "船员", "唱歌", "海鸥", "跟着")


def chinese_words() -> list[str]:
    """Return the Chinese words that are one token each, the longest first; other characters stand alone."""
    words = {*PHRASES, *CHINESE.ships, *CHINESE.values, *chain.from_iterable(CHINESE.values.values())}
    return sorted(words, key=lambda word: (-len(word), word))


def pattern() -> str:
    """Return the expression that cuts text into tokens: an English word takes the space before it along."""
    return "|".join([*chinese_words(), " ?[A-Za-z]+", "\n\n", "[\\s\\S]"])


def texts() -> Iterable[str]:
    """Yield texts that hold every token of the vocabulary."""
    for language in LANGUAGES:
        yield from _sentences(language)
    yield from (frame.format(context="", question="") for frame in FRAMES)
    yield from SYSTEM
    yield "".join(chr(code) for code in range(32, 127)) + "\n，。：；？！、（）【】"


def _sentences(language: Language) -> Iterable[str]:
    names = list(language.values)
    for number, ship in enumerate(language.ships):
        fact = Fact(ship=ship, attribute=names[number % len(names)], value=language.values[names[0]][0])
        yield language.ask([fact] * 3)
        yield language.join(["", language.tell(fact), language.tell(fact)])
        yield from (sentence.format(ship=ship) for sentence in language.idle)
        yield from (language.join(["", sentence.format(ship=ship)]) for sentence in language.idle)
    for name, values in language.values.items():
        yield from (language.tell(Fact(ship=language.ships[0], attribute=name, value=value)) for value in values)
    yield language.patterns["refusal"]


def vocabulary(given: Iterable[str]) -> list[str]:
    """Return the tokens of the texts in the order in which they first appear, after the special ones."""
    cut = re.compile(pattern())
    return list(dict.fromkeys(chain(SPECIAL, *(cut.findall(text) for text in given))))


def build() -> PreTrainedTokenizerFast:
    """Return the tokenizer with its chat template."""
    words: Sequence[str] = vocabulary(texts())
    inner = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(pattern()), behavior="isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        additional_special_tokens=[f"<|{role}|>" for role in ROLES],
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=2048,
    )
