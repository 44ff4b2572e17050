"""Calls that are counted and not made: the simulator answers in this process, and nothing is sent or charged."""

import re
from collections import defaultdict
from collections.abc import Collection
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, build_opener

from lrq.calls.keys import call_key
from lrq.domain.records import Call, Choice, Purpose, Reply, Role, Usage
from lrq.judge.estimate import Amount, Group
from lrq.sim.options import Options
from lrq.sim.prefix import BLOCK, SHORTEST, PrefixCache, tokenise
from lrq.sim.replies import UNKNOWN, Outcome, answer_chat, answer_embedding, answer_score
from lrq.sim.requests import BadRequest, ChatRequest, EmbeddingRequest
from lrq.sim.text import CJK

# Replies to kinds of prompt that the simulator does not know, one for each attempt: one of them may be readable.
GUESSES = ("[[5]]", "[[Fully supported]]", "<statement>It is so.</statement>", "[[1: Fully supported]]", '{"score": 5}')
# Tokens of a Chinese character: 0.76 with GPT-4o, 0.66 with Qwen, 0.61 with DeepSeek, by our Chinese prompts. Ours: 1.
PER_CHARACTER = 0.68
_CJK = re.compile(f"[{CJK}]")


class Counter:
    """Obtains replies as lrq.calls.client.Caller does; counts each distinct question once.

    `heads`: fixed parts of prompts. The first call that begins with one misses the prompt cache, all others find it
    there; since that does not grow with the items, it is told apart: `missed` has the tokens by group.
    `simulated`: endpoints whose tokens are our own unit; those of others are converted.
    """

    def __init__(self, heads: Collection[str] = (), simulated: Collection[str] = ()) -> None:
        self.guessed: set[str] = set()  # kinds that the simulator does not know
        self.missed: dict[Group, int] = defaultdict(int)
        self.longest: dict[tuple[Role, str, str], float] = {}  # role, endpoint, model → tokens of the longest prompt
        self._heads = heads
        self._simulated = simulated
        self._seen: set[str] = set()
        self._cold: set[int] = set()  # heads that no call has begun with yet, by the hash of their last block
        self._models: set[str] = set()
        self._prefixes = PrefixCache()
        self._at_work: list[tuple[int, ...]] = []  # chains of the calls since the last take
        self._bill: dict[Group, Amount] = {}

    def take(self) -> dict[Group, Amount]:
        """Return what was counted since the last time: calls made at once, which find what stood there before."""
        bill, self._bill = self._bill, {}
        for chain in self._at_work:
            self._prefixes.add(chain)
        self._at_work = []
        return bill

    async def call(self, call: Call, purpose: Purpose) -> Reply:
        key, outcome = call_key(call), self._answer(call, purpose)
        if key not in self._seen and not (outcome.kind == "guess" and call.attempt):
            self._seen.add(key)
            self.count(call, purpose, self._amount(call, purpose, outcome))
        usage = Usage(prompt_tokens=outcome.prompt_tokens, completion_tokens=outcome.completion_tokens)
        vectors = [[float(value) for value in vector] for vector in outcome.vectors]
        return Reply(key=key, choices=outcome.choices, vectors=vectors, usage=usage)

    def count(self, call: Call, purpose: Purpose, amount: Amount) -> None:
        """Add `amount`, what a call takes, to the group of the call and its `purpose`."""
        group = _group(call, purpose)
        self._bill[group] = self._bill.get(group, Amount()) + amount

    def _amount(self, call: Call, purpose: Purpose, outcome: Outcome) -> Amount:
        self._warm(call.model)
        cached = self._prefixes.cached(outcome.chain)
        begun = self._cold.intersection(outcome.chain[: cached // BLOCK])
        if begun:
            self._cold -= begun
            self.missed[_group(call, purpose)] += cached
        self._at_work.append(outcome.chain)
        share = 1.0 if call.endpoint in self._simulated else _converted(call, outcome.prompt_tokens)
        if call.role != "embedding":
            name = call.role, call.endpoint, call.model
            self.longest[name] = max(self.longest.get(name, 0.0), outcome.prompt_tokens * share)
        return Amount(
            calls=1,
            prompt_tokens=outcome.prompt_tokens * share,
            cached_tokens=cached * share,
            completion_tokens=outcome.completion_tokens * share,
        )

    def _warm(self, model: str) -> None:
        """Take the heads for cached, as they are but for their first calls."""
        if model in self._models:
            return
        self._models.add(model)
        for head in self._heads:
            chain = tokenise(model, f"user\n{head}").chain
            if self._prefixes.cached(chain) < len(chain) * BLOCK >= SHORTEST:
                self._prefixes.add(chain)
                self._cold.add(chain[-1])

    def _answer(self, call: Call, purpose: Purpose) -> Outcome:
        if call.api == "score":
            return answer_score(call.model, *call.input)
        if call.api == "embeddings":
            embedding = EmbeddingRequest(model=call.model, texts=call.input, dimensions=64, encoding="float")
            return answer_embedding(embedding)
        request = ChatRequest(
            model=call.model,
            messages=call.messages,
            n=call.n,
            max_tokens=call.max_tokens,
            temperature=call.temperature or 0.0,
            seed=call.seed or 0,
        )
        try:
            outcome = answer_chat(request, Options())
        except BadRequest:
            outcome = _guess(request, call.attempt)
        if outcome.kind in {"guess", UNKNOWN}:
            self.guessed.add(purpose.kind)
        return outcome


def _converted(call: Call, tokens: int) -> float:
    """Tokens of common vocabularies for each of our own, by how much of the text is Chinese, Japanese or Korean."""
    texts = [message["content"] for message in call.messages] + list(call.input)
    characters = sum(len(_CJK.findall(text)) for text in texts)
    return 1 - (1 - PER_CHARACTER) * characters / max(1, tokens)


def _group(call: Call, purpose: Purpose) -> Group:
    return Group(call.role, call.endpoint, call.model, purpose.step, purpose.dimension, purpose.kind)


def _guess(request: ChatRequest, attempt: int) -> Outcome:
    text = "\n".join(f"{message['role']}\n{message['content']}" for message in request.messages)
    prompt, guess = tokenise(request.model, text), GUESSES[attempt % len(GUESSES)]
    return Outcome(
        kind="guess",
        model=request.model,
        choices=(Choice(text=guess),),
        prompt_tokens=prompt.tokens,
        completion_tokens=len(GUESSES[0]),
        chain=prompt.chain,
    )


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """Follow nothing: what listens on this machine sends us nowhere else."""


def is_simulator(url: str) -> bool:
    """Tell whether a simulator listens at `url`, by a free request without a key, and only on this machine."""
    if urlsplit(url).hostname not in {"localhost", "127.0.0.1", "::1"}:
        return False
    try:
        with build_opener(ProxyHandler({}), _NoRedirect).open(f"{url}/models", timeout=1) as reply:
            return "x-lrq-sim" in reply.headers
    except HTTPError as refusal:
        with refusal:
            return "x-lrq-sim" in refusal.headers
    except OSError:
        return False
