"""What items will cost: the recipe's own procedures, asked in this process with nothing sent, scaled to all items."""

import asyncio
import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from lrq.domain.lines import Entry
from lrq.domain.records import Call, Item, Passage, Prompt, Purpose, Response, Score
from lrq.domain.tokens import chunk, count_tokens
from lrq.estimate.contexts import Longest
from lrq.estimate.cost import Estimate
from lrq.judge.asking import Asker, JudgeModel
from lrq.judge.estimate import Amount, Bill, Scaled, Size, less_cached, merged, scale
from lrq.judge.passages import Embedder, PassageCache
from lrq.judge.preferences import Preferences
from lrq.judge.votes import cast
from lrq.recipes import Case, Step
from lrq.run_config import RunConfig
from lrq.sim.counting import Counter

RESPONSE_TOKENS = 250  # of a response, where neither the file nor a reference answer tells: a long paragraph
_MOST_PHASES = 8  # of prompts that are made from the answers to earlier ones
_NOBODY = JudgeModel(endpoint="(none)", model="(none)")  # judges where no endpoint is named yet


class DryRun:
    """Counts what items would ask.

    response_tokens: of responses that the items do not bring. simulated: endpoints that are simulators.
    """

    def __init__(
        self, frozen: RunConfig, *, response_tokens: int | None = None, simulated: Collection[str] = ()
    ) -> None:
        self._frozen = frozen
        self._response_tokens = response_tokens
        texts = frozen.config["prompts"].values()
        self._counter = Counter([text.partition("{{")[0] for text in texts], simulated)
        self._steps = frozen.recipe.steps_for(frozen.config["settings"])
        self._known_judge = bool(frozen.config["judge"]["models"])

    def size(self, entry: Entry) -> Size:
        """Return the size of the item of `entry`; responses that it does not bring are as long as its answer."""
        count = len({(response.prompt, response.text) for response in entry.responses}) or self._expected(entry.item)
        chars = sum(len(text) for text in {response.text for response in entry.responses})
        chars = chars or count * len(entry.item.answer or "")
        context = len(entry.item.context)
        return Size(responses=count, response_chars=chars, context_chars=context, read_chars=count * context)

    def bill(self, entries: Sequence[Entry], sizes: Sequence[Size] = (), total: Size | None = None) -> Scaled:
        """Count the calls of `entries`, or with `total` of all items that they are a sample of, with their `sizes`."""
        bills = asyncio.run(self._bills(entries))
        scaled = Scaled(bill=merged(bills), uncertainty=0.0)
        if total is not None:
            scaled = scale(list(zip(sizes, bills, strict=True)), total)
        return replace(scaled, bill=less_cached(scaled.bill, self._counter.missed))

    @property
    def longest(self) -> Longest:
        """Return the longest prompts so far, in tokens, by endpoint; those of an endpoint that nobody named apart."""
        return {name: tokens for name, tokens in self._counter.longest.items() if name[1] != _NOBODY.endpoint}

    def notes(self) -> list[str]:
        """Say what the figures take for granted."""
        kinds, schedule = ", ".join(sorted(self._counter.guessed)), self._frozen.schedule
        notes = [f"replies to prompts of kind {kinds} are guessed"] if kinds else []
        if schedule and schedule.rounds > 1 and schedule.round_items == "all":
            notes.append(f"this is the first of {schedule.rounds} rounds; each of the others judges all items anew")
        return notes

    @property
    def _sampled(self) -> int:
        return int(self._frozen.config["sample"]["responses"])

    def _expected(self, item: Item) -> int:
        """Count the responses to an item that are sampled to the prompts that are made first."""
        prompts = self._frozen.recipe.prompts(self._frozen.case(item))
        return sum(prompt.samples or self._sampled for prompt in prompts)

    async def _bills(self, entries: Iterable[Entry]) -> list[Bill]:
        bills: list[Bill] = []
        for entry in entries:
            await self.play(entry)
            bills.append(self._counter.take())
        return bills

    async def play(self, entry: Entry) -> Case:
        """Return the case of an item after its steps: stand-ins answer its prompts, the simulator judges."""
        case = self._frozen.case(entry.item, responses=entry.responses)
        case = case if entry.responses else await self._sample(case)
        cache = PassageCache()
        scores = [score for step in self._steps for score in await self._judge(step, case, cache)]
        return replace(case, scores=tuple(scores))

    async def _judge(self, step: Step, case: Case, cache: PassageCache) -> Sequence[Score]:
        frozen, name, context = self._frozen, step.name, case.item.context
        purpose = Purpose(run=0, step=name)

        async def nearest(queries: Sequence[str], *, count: int, chunk_tokens: int) -> Sequence[Sequence[Passage]]:
            embed = self._embedder(name, purpose)
            passages = await cache.get((chunk_tokens,), context, chunk_tokens, embed)
            return await passages(queries, count=count)

        async def vote(number: int) -> Sequence[Score]:
            models = frozen.judge_of if self._known_judge else lambda *_: _NOBODY
            ask = Asker(caller=self._counter, models=models, purpose=purpose, vote=number, shared=step.shared)
            prefer = None
            if frozen.is_compared(name):
                prefer = Preferences(caller=self._counter, models=frozen.judge_of, purpose=purpose)
            return await step.procedure(step.judge(case, ask, nearest, prefer))

        return await cast(frozen.votes(name), vote)

    def _embedder(self, step: str, purpose: Purpose) -> Embedder | None:
        models = self._frozen.of(step)["embedding"]["models"]
        if not models:
            return None
        endpoint = {name: models[0][name] for name in ("endpoint", "model", "identity")}
        return Embedder(caller=self._counter, purpose=replace(purpose, kind="embedding"), **endpoint)

    async def _sample(self, case: Case) -> Case:
        """Answer an item's prompts with stand-ins; count the paid calls among them."""
        for _ in range(_MOST_PHASES):
            prompts = self._frozen.recipe.prompts(case)
            if not prompts:
                break
            first = len(case.prompts)
            answers = [
                answer for n, prompt in enumerate(prompts, first) for answer in await self._answer(case, n, prompt)
            ]
            case = replace(case, prompts=(*case.prompts, *prompts), responses=(*case.responses, *answers))
        return case

    async def _answer(self, case: Case, number: int, prompt: Prompt) -> list[Response]:
        config, count = self._frozen.config, prompt.samples or self._sampled
        length = self._response_tokens or count_tokens(case.item.answer or "") or RESPONSE_TOKENS
        models = () if prompt.by == "policy" and config["policy"]["path"] else config[prompt.by]["models"]
        model = JudgeModel(endpoint=models[0]["endpoint"], model=models[0]["model"]) if models else _NOBODY
        messages = prompt.render(case.item.context)
        call = Call(role=prompt.by, messages=messages, endpoint=model.endpoint, model=model.model)
        purpose = Purpose(run=0, step="sample", kind=prompt.name or "sample")
        if prompt.by == "judge":
            reply = await self._counter.call(call, purpose)
            texts = [choice.text for choice in reply.choices] * count
        else:
            texts = [prompt.typical] * count if prompt.typical else stand_ins(case.item, count, length)
            texts = [f"{text} ({number})" for text in texts] if number and not prompt.typical else texts
            if models:
                tokens = sum(count_tokens(message["content"]) for message in call.messages)
                amount = Amount(calls=1, prompt_tokens=tokens, completion_tokens=sum(map(count_tokens, texts)))
                self._counter.count(call, purpose, amount)
        return [Response(text=text, k=k, prompt=number) for k, text in enumerate(texts)]


def stand_ins(item: Item, count: int, tokens: int) -> list[str]:
    """Return `count` texts of `tokens` tokens: stretches of the context from places evenly apart, no two equal."""
    text = (item.context or item.question or item.answer or "There is nothing to read.") + "\n"
    width = 40 * tokens  # characters, more than that many tokens have
    starts = [len(text) * number // count for number in range(count)]
    stretches = [(text[start : start + width] + text * (width // len(text) + 1))[:width] for start in starts]
    cut = [stretch[: chunk(stretch, max(1, tokens - 1))[0].end] for stretch in stretches]
    return [f"{stretch} {number}" for number, stretch in enumerate(cut)]


class Reservoir:
    """A random sample of items of which one sees each once (Vitter's algorithm R), and the size of all."""

    def __init__(self, size: int) -> None:
        self.kept: list[tuple[Size, Entry]] = []
        self.total = Size(items=0)
        self.with_responses = 0  # items that bring some
        self.responses = 0
        self._size = size
        self._random = random.Random(0)  # the same file, the same sample

    def add(self, size: Size, entry: Entry) -> None:
        """Count an item, and keep it with the chance that makes a random sample."""
        count = int(self.total.items)
        self.total += size
        self.with_responses += bool(entry.responses)
        self.responses += len(entry.responses) or round(size.responses)
        if count < self._size:
            self.kept.append((size, entry))
        elif (index := self._random.randrange(count + 1)) < self._size:
            self.kept[index] = (size, entry)

    def sample(self, most_chars: int) -> list[tuple[Size, Entry]]:
        """Return as many as have about `most_chars` characters to read, by the mean of all; three at least."""
        mean = self.total.context_chars / max(1.0, self.total.items)
        count = max(3, int(most_chars / max(1.0, mean)))
        self._random.shuffle(self.kept)
        return self.kept[:count]


def estimate_items(dry_run: DryRun, reservoir: Reservoir, most_chars: int) -> Estimate:
    """Estimate the bill of all items from a closer look at some, of about `most_chars` characters of context."""
    entries, total = reservoir.sample(most_chars), reservoir.total
    scaled = dry_run.bill([entry for _, entry in entries], [size for size, _ in entries], total)
    without = round(total.items) - reservoir.with_responses
    note = f"{without} items bring no responses: as many as are sampled are taken for granted, as long as their answers"
    return Estimate(
        items=round(total.items),
        responses=reservoir.responses,
        looked_at=len(entries),
        bill=scaled.bill,
        uncertainty=scaled.uncertainty,
        notes=[*dry_run.notes(), *([note] if without else [])],
    )
