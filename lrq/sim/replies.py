"""From a request to its reply: what is said, what it costs in tokens, and the JSON that says so."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from lrq.domain.records import Choice
from lrq.domain.tokens import count_tokens
from lrq.sim.answering import manner, respond, take_apart
from lrq.sim.embedding import embed, encoded
from lrq.sim.faults import draw
from lrq.sim.judging import DECISIONS, Verdict
from lrq.sim.options import Options
from lrq.sim.prefix import cut, tokenise
from lrq.sim.questioning import asks_for_questions, write_questions, write_system_message
from lrq.sim.requests import BadRequest, ChatRequest, EmbeddingRequest
from lrq.sim.sections import read_prompt
from lrq.sim.shown import shown_verdict

UNKNOWN = "unknown"  # kind of a task that is answered with a mark its prompt shows
GOLDEN = 0.618034  # steps of the golden ratio spread the choices of one request over the manners


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A reply before it is sent: choices of a chat, vectors of an embedding, or a reward for each text, [count, 1]."""

    kind: str  # of the judge prompt, or "policy", "embedding", "canned"
    model: str
    choices: tuple[Choice, ...] = ()
    vectors: tuple[NDArray[Any], ...] = ()
    encoding: str = "float"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    chain: tuple[int, ...] = ()


def answer_chat(request: ChatRequest, options: Options) -> Outcome:
    """Return what the judge or the policy says; raises BadRequest for an unknown task or too long a prompt."""
    text = "\n".join(f"{message['role']}\n{message['content']}" for message in request.messages)
    prompt = tokenise(request.model, text)
    needed = prompt.tokens + (request.max_tokens or 0)
    if options.max_context is not None and needed > options.max_context:
        message = f"The model takes {options.max_context} tokens; prompt and completion would have {needed}."
        raise BadRequest(message, code="context_length_exceeded")
    kind, verdicts = _verdicts(request)
    choices = tuple(_choice(verdict, request.max_tokens, options.reasoning) for verdict in verdicts)
    reasoning = sum(count_tokens(choice.reasoning) for choice in choices)
    return Outcome(
        kind=kind,
        model=request.model,
        choices=choices,
        prompt_tokens=prompt.tokens,
        completion_tokens=reasoning + sum(count_tokens(choice.text) for choice in choices),
        reasoning_tokens=reasoning,
        chain=prompt.chain,
    )


def _verdicts(request: ChatRequest) -> tuple[str, Sequence[Verdict]]:
    text = request.messages[-1]["content"]
    prompt = read_prompt(text)
    if prompt is not None and prompt.kind in DECISIONS:
        return prompt.kind, [DECISIONS[prompt.kind](prompt)] * request.n
    if prompt is None and (count := asks_for_questions(text)):
        return "questions", [Verdict(text=write_questions(text, count))] * request.n
    if prompt is None and (system := write_system_message(text)):
        return "system", [Verdict(text=system)] * request.n
    if verdict := shown_verdict(text, is_task=prompt is not None):
        return UNKNOWN, [verdict] * request.n
    if prompt is None:
        return "policy", _answers(request)
    raise BadRequest(f"The simulator does not know the task `{prompt.kind}`, whose prompt shows no mark.")


def _answers(request: ChatRequest) -> list[Verdict]:
    """Return the policy's n answers: a draw of prompt and seed for the first, even steps from there for the rest."""
    parts = take_apart(request.messages)
    start = draw("policy", parts.question, parts.document, request.seed)
    manners = ["right" if not request.temperature else manner((start + i * GOLDEN) % 1) for i in range(request.n)]
    return [Verdict(text=respond(parts, name, int(start * 1009) + i)) for i, name in enumerate(manners)]


def _choice(verdict: Verdict, limit: int | None, apart: bool) -> Choice:
    """Cut the verdict to at most `limit` tokens; reasoning comes first and may use them up."""
    if not apart:
        full = f"{verdict.reasoning}\n{verdict.text}" if verdict.reasoning else verdict.text
        text = full if limit is None else cut(full, limit)
        return Choice(text=text, finish="stop" if text == full else "length")
    reasoning = verdict.reasoning if limit is None else cut(verdict.reasoning, limit)
    left = None if limit is None else limit - count_tokens(reasoning)
    text = verdict.text if left is None else cut(verdict.text, left)
    stopped = reasoning == verdict.reasoning and text == verdict.text
    return Choice(text=text, reasoning=reasoning, finish="stop" if stopped else "length")


def answer_embedding(request: EmbeddingRequest) -> Outcome:
    return Outcome(
        kind="embedding",
        model=request.model,
        vectors=tuple(embed(text, request.dimensions) for text in request.texts),
        encoding=request.encoding,
        prompt_tokens=sum(map(count_tokens, request.texts)),
    )


def answer_score(model: str, prompt: str, *responses: str) -> Outcome:
    """Return a reward for each of `responses` that depends on its words and those of `prompt` alone."""
    rewards = tuple(np.array([draw("score", prompt, response)]) for response in responses)
    tokens = sum(count_tokens(prompt) + count_tokens(response) for response in responses)
    return Outcome(kind="score", model=model, vectors=rewards, prompt_tokens=tokens)


CANNED = Outcome(
    kind="canned", model="judge-sim", choices=(Choice(text="[[7]]"),), prompt_tokens=100, completion_tokens=5
)


def instead(outcome: Outcome, text: str) -> Outcome:
    """Return the outcome with every choice saying `text`; of an embedding, without its first vector."""
    choices = tuple(Choice(text=text) for _ in outcome.choices)
    tokens = sum(count_tokens(text) for _ in choices)
    return replace(outcome, choices=choices, vectors=outcome.vectors[1:], completion_tokens=tokens, reasoning_tokens=0)


def render(outcome: Outcome, digest: bytes, cached: int) -> bytes:
    """Return the body of a 200 reply; everything but the `cached` tokens follows from the request.

    `digest` is the request body's, and names the reply.
    """
    fields = _embedding(outcome) if outcome.kind == "embedding" else _chat(outcome, digest, cached)
    return orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY)


def _chat(outcome: Outcome, digest: bytes, cached: int) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{digest.hex()}",
        "object": "chat.completion",
        "created": 0,  # the same request gets the same reply
        "model": outcome.model,
        "choices": [
            {"index": index, "message": _message(choice), "finish_reason": choice.finish}
            for index, choice in enumerate(outcome.choices)
        ],
        "usage": {
            "prompt_tokens": outcome.prompt_tokens,
            "completion_tokens": outcome.completion_tokens,
            "total_tokens": outcome.prompt_tokens + outcome.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens_details": {"reasoning_tokens": outcome.reasoning_tokens},
        },
    }


def _message(choice: Choice) -> dict[str, str]:
    message = {"role": "assistant", "content": choice.text}
    return message | {"reasoning_content": choice.reasoning} if choice.reasoning else message


def _embedding(outcome: Outcome) -> dict[str, Any]:
    vectors = (encoded(vector, outcome.encoding) for vector in outcome.vectors)
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    usage = {"prompt_tokens": outcome.prompt_tokens, "total_tokens": outcome.prompt_tokens}
    return {"object": "list", "model": outcome.model, "data": data, "usage": usage}


def render_error(message: str, code: str, kind: str = "invalid_request_error") -> bytes:
    return orjson.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


def digest_of(body: bytes) -> bytes:
    return blake2b(body, digest_size=16).digest()
