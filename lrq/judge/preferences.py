"""Comparing responses by a preference or reward model behind the score API: one call for all responses to a prompt."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lrq.domain.errors import CallFailed, CallRefused, Unscored
from lrq.domain.records import Call, Purpose
from lrq.judge.asking import JudgeModel, Obtain, in_series
from lrq.recipes.ports import Answer

KIND = "preference"  # of these calls, in usage and estimates


@dataclass(frozen=True, kw_only=True)
class Preferences:
    """Fulfils the port `Prefer` for one step of one item. What such a model says does not vary, so votes are one."""

    caller: Obtain
    models: Callable[[str, str], JudgeModel]  # of a dimension and a prompt
    purpose: Purpose
    series: int = 0

    async def __call__(self, prompt: str, responses: Sequence[str], *, dimension: str) -> Answer[list[list[float]]]:
        model = self.models(dimension, prompt)
        call = Call(
            role="judge",
            endpoint=model.endpoint,
            model=model.model,
            input=(prompt, *responses),
            extra=model.extra,
            identity=model.identity,
        )
        purpose = replace(self.purpose, dimension=dimension, kind=KIND)
        try:
            reply = await in_series(self.caller, call, purpose, self.series)
        except (CallRefused, CallFailed) as failure:
            raise Unscored(f"{dimension}, {KIND}: {failure}") from None
        return Answer(value=[list(row) for row in reply.vectors], text="", calls=(reply.key,))
