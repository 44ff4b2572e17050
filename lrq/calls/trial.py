"""One real call to an endpoint, as small as can be: what `lrq doctor --call` makes."""

import uuid
from dataclasses import dataclass, replace

from lrq.calls.adapting import Adapting
from lrq.calls.estimates import counted
from lrq.calls.learned import room_for
from lrq.calls.outcomes import Outcome
from lrq.calls.prices import rates_of
from lrq.calls.transport import Transport
from lrq.config import Endpoint
from lrq.domain.records import Call, Role, Usage

_QUESTION = "Answer with the single word: ready."
_MOST_FORMS = 8  # that are tried


@dataclass(frozen=True, kw_only=True)
class Trial:
    outcome: Outcome
    usage: Usage
    cost_micros: int | None  # None: unpriced
    note: str  # on the counts


async def try_call(transport: Transport, endpoint: Endpoint, role: Role, adapting: Adapting) -> Trial:
    """Ask in the form of the `role`'s calls until the endpoint takes it; what it teaches is in `adapting.new`.

    A paid call of a few tokens. Its outcome may be a failure: nothing is tried again but another form.
    """
    call = _call(endpoint, role)
    for _ in range(_MOST_FORMS):
        form = adapting.learned.form(endpoint, call, "")
        outcome = await transport.post(endpoint, call, f"doctor-{uuid.uuid4().hex}", form)
        if not adapting.refused(endpoint, call, "", form, outcome):
            break
    usage, note = counted(call, outcome.choices, outcome.usage, form) if outcome.kind == "ok" else (Usage(), "")
    if outcome.kind == "ok" and room_for(form, outcome.choices, usage):  # of so small a question no room says nothing
        adapting.answered(endpoint, call, "others", form, outcome)
    rates = rates_of(endpoint)
    return Trial(
        outcome=outcome,
        usage=usage,
        cost_micros=None if rates is None else rates.cost(usage),
        note=note or outcome.note,
    )


def _call(endpoint: Endpoint, role: Role) -> Call:
    call = Call(role=role, endpoint=endpoint.name, model=endpoint.model, extra=endpoint.extra)
    if role == "embedding":
        return replace(call, input=("ready",))
    if endpoint.api == "score":
        return replace(call, input=(_QUESTION, "ready", "never"))
    call = replace(call, messages=({"role": "user", "content": _QUESTION},))
    if role == "policy":
        return replace(call, temperature=1.0, top_p=1.0, seed=1, n=2, max_tokens=256)
    return replace(call, temperature=0.01, max_tokens=512)
