"""Whether prompts fit into the contexts that endpoints name at /v1/models, before anything is paid."""

import asyncio
import math
from collections.abc import Mapping

from lrq.calls.transport import Transport
from lrq.config import Settings
from lrq.domain.records import Role

_PATIENCE = 3.0  # seconds for a list of models: an endpoint that gives none is no reason to wait

Longest = Mapping[tuple[Role, str, str], float]  # role, pool and model → tokens of the longest prompt


def short_contexts(settings: Settings, longest: Longest) -> list[str]:
    """Return a note on each endpoint whose context is shorter than the `longest` prompt that it will be sent.

    Asks each for its list of models, which is free; one that does not say how long its context is passes.
    """
    return asyncio.run(_notes(settings, longest)) if longest else []


async def _notes(settings: Settings, longest: Longest) -> list[str]:
    transport = Transport()
    notes = []
    try:
        for (role, name, model), tokens in longest.items():
            endpoints = settings.pool(role, name)
            listings = await asyncio.gather(*(transport.models(endpoint, _PATIENCE) for endpoint in endpoints))
            contexts = [listing.contexts.get(model, math.inf) for listing in listings]
            if contexts and tokens > max(contexts):
                notes.append(
                    f"{model} has a context of {max(contexts):,} tokens, and a prompt of about {round(tokens):,} is "
                    f"among those that were looked at: what does not fit stays unscored; raise the server's context, "
                    f"make the recipe's chunks shorter, or name another {role}"
                )
    finally:
        await transport.close()
    return notes
