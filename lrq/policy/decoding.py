"""The loop that decodes the continuations of a prompt together."""

from collections.abc import Sequence, Set
from dataclasses import dataclass

from lrq.domain.errors import Stopping
from lrq.domain.records import NOT_FINITE
from lrq.policy.forks import Fork, Tensor
from lrq.policy.noise import choose
from lrq.policy.port import Sampling, ShouldStop


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One response as it was drawn."""

    ids: list[int]  # the end included, where one was drawn
    failure: str = ""  # why it breaks off; empty where it does not


def decode(
    fork: Fork, logits: Tensor, keys: Sequence[int], sampling: Sampling, ends: Set[int], should_stop: ShouldStop
) -> list[Drawn]:
    """Draw one response for each of `keys` after the prompt whose next `logits` are (1, vocabulary).

    `ends` are the tokens that end a response. A row that has ended is dropped, and so is one whose logits hold a NaN or
    an infinity: no token can be drawn from those, and the likeliest of them means nothing. Raises Stopping between two
    tokens once `should_stop` says so.
    """
    ids: list[list[int]] = [[] for _ in keys]
    failed: set[int] = set()
    rows, logits = list(range(len(keys))), logits.expand(len(keys), -1)
    for position in range(sampling.max_new_tokens):
        if should_stop():
            raise Stopping("sampling was stopped; what was drawn so far will be drawn again, the same")
        finite = logits.isfinite().all(-1).tolist()
        if not all(finite):
            failed.update(row for row, good in zip(rows, finite, strict=True) if not good)
            rows, logits = [row for row in rows if row not in failed], logits[finite]
        alive = [keys[row] for row in rows]
        if not alive:
            break
        tokens = choose(logits, alive, position, temperature=sampling.temperature, top_p=sampling.top_p)
        for row, token in zip(rows, tokens.tolist(), strict=True):
            ids[row].append(token)
        going = [i for i, row in enumerate(rows) if ids[row][-1] not in ends]
        if not going or position + 1 == sampling.max_new_tokens:
            break
        rows = [rows[i] for i in going]
        logits = fork.step(rows, tokens[going])
    return [Drawn(ids=row_ids, failure=NOT_FINITE if row in failed else "") for row, row_ids in enumerate(ids)]
