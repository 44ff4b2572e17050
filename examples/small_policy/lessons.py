"""What the small policy learns from: documents with many questions, from short to long, as batches of tokens."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from harbour import LANGUAGES, Fact, Language, answer, draw_facts
from tokenizer import FRAMES, SYSTEM
from torch import Tensor
from transformers import PreTrainedTokenizerFast

Messages = list[dict[str, str]]

STAGES = (6, 16, 48, 96, 130)  # sentences of a document; a sentence has six or seven tokens


@dataclass(frozen=True, kw_only=True)
class Lookups:
    """Places in answers whose next token stands elsewhere, and where it stands."""

    rows: Tensor  # int [N]
    places: Tensor  # int [N]
    wanted: Tensor  # bool [N, T]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Token ids [B, T] and what is known about each position."""

    ids: Tensor
    real: Tensor  # bool: is no padding
    answer: Tensor  # bool: belongs to an answer, the end mark included
    value: Tensor  # bool: is the value of a fact
    ship: Tensor  # int: which ship was named last, -1 before the first
    attribute: Tensor  # int: which attribute was named last, -1 before the first
    values: Lookups  # of a value in the document, under the ship and the attribute just named
    names: Lookups  # of a ship or an attribute in the question that is being answered


class Reader:
    """Turns conversations into batches; knows the tokens of ships, attributes and values."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        words = tokenizer.get_vocab()
        self._ships = _numbering(words, [ship for language in LANGUAGES for ship in language.ships])
        self._attributes = _numbering(words, [name for language in LANGUAGES for name in language.values])
        values = [value for language in LANGUAGES for group in language.values.values() for value in group]
        self._values = _numbering(words, values)
        self._stops = torch.tensor([words["."], words["。"]])
        self._user, self._assistant = words["<|user|>"], words["<|assistant|>"]
        self.ships, self.attributes = int(self._ships.max()) + 1, int(self._attributes.max()) + 1

    def read(self, conversations: Sequence[Messages]) -> Batch:
        """Return the batch, padded on the right."""
        texts = self.tokenizer.apply_chat_template(list(conversations), tokenize=False)
        ids = self.tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")["input_ids"]
        real = ids != self.tokenizer.pad_token_id
        speaks = (ids == self._user) | (ids == self._assistant)
        answer = (_latest(torch.where(speaks, ids, -1)) == self._assistant) & ~speaks & real
        value, ship, attribute = self._values[ids] >= 0, _latest(self._ships[ids]), _latest(self._attributes[ids])
        name = (self._ships[ids] >= 0) | (self._attributes[ids] >= 0)

        rows, places = (answer & value)[:, 1:].nonzero(as_tuple=True)
        document = value & ((ids == self._assistant).cumsum(1) == 0)
        same = (ship[rows] == ship[rows, places, None]) & (attribute[rows] == attribute[rows, places, None])
        values = Lookups(rows=rows, places=places, wanted=document[rows] & same)

        rows, places = (answer & name)[:, 1:].nonzero(as_tuple=True)
        same = ids[rows] == ids[rows, places + 1, None]
        names = Lookups(rows=rows, places=places, wanted=self._question(ids)[rows, places] & same)
        return Batch(
            ids=ids, real=real, answer=answer, value=value, ship=ship, attribute=attribute, values=values, names=names
        )

    def _question(self, ids: Tensor) -> Tensor:
        """For each position [B, T, T]: what follows the last full stop before the assistant's latest turn."""
        begins = ids == self._assistant
        sentence = torch.isin(ids, self._stops).cumsum(1)
        asked = _latest(torch.where(begins, sentence, -1))
        turn = begins.cumsum(1)
        return (sentence[:, None] == asked[:, :, None]) & (turn[:, None] < turn[:, :, None])


def _numbering(words: dict[str, int], names: Sequence[str]) -> Tensor:
    """Return for each token id the number of the name it is, or -1."""
    table = torch.full((len(words),), -1)
    for number, name in enumerate(names):
        for token in (name, f" {name}"):
            if token in words:
                table[words[token]] = number
    return table


def _latest(classes: Tensor) -> Tensor:
    """Return at each position the last class that is not -1 up to it."""
    places = torch.arange(classes.shape[1]).expand_as(classes)
    last = torch.where(classes >= 0, places, 0).cummax(1).values
    return classes.gather(1, last)


def lesson(rng: random.Random, sentences: int, *, questions: int) -> Messages:
    """Return a conversation: a document, then many questions on it, answered right but for a refusal now and then."""
    language = rng.choice(LANGUAGES)
    facts, text = _document(rng, language, sentences)
    messages: Messages = [{"role": "system", "content": rng.choice(SYSTEM)}] if rng.random() < 0.1 else []
    for number in range(questions):
        asked = rng.sample(facts, min(len(facts), rng.choice((1, 2, 2, 3))))
        kind = "refusal" if rng.random() < 0.04 else "right"
        prompt = frame(rng, text, language.ask(asked)) if number == 0 else language.ask(asked)
        messages.append({"role": "user", "content": prompt})
        messages.append({"role": "assistant", "content": answer(rng, language, asked, facts, kind)})
    return messages


def frame(rng: random.Random, context: str, question: str) -> str:
    """Return a prompt: half of the time lrq's own, else any."""
    return (FRAMES[0] if rng.random() < 0.5 else rng.choice(FRAMES)).format(context=context, question=question)


def _document(rng: random.Random, language: Language, sentences: int) -> tuple[list[Fact], str]:
    """Three in ten documents speak of one attribute alone, and three in ten state their facts more than once."""
    count = max(2, round(sentences * 0.8))
    facts = draw_facts(rng, language, count, attributes=1 if rng.random() < 0.3 else 8)
    told = [language.tell(fact) for fact in facts]
    if rng.random() < 0.3:
        facts = facts[: max(2, len(facts) // 2)]
        told = [language.tell(fact) for fact in facts + rng.choices(facts, k=count - len(facts))]
    told += [rng.choice(language.idle).format(ship=rng.choice(language.ships)) for _ in range(sentences - len(told))]
    rng.shuffle(told)
    return facts, language.join(told)
