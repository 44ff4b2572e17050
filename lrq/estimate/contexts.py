"""Whether prompts fit into the contexts that endpoints name at /v1/models, before anything is paid."""

import asyncio
from collections.abc import Mapping

from lrq.calls.transport import Transport
from lrq.config import Endpoint, Settings
from lrq.domain.records import Role

_PATIENCE = 3.0  # seconds for a list of models: an endpoint that gives none is no reason to wait

Longest = Mapping[tuple[Role, str, str], float]  # role, pool and model → tokens of the longest prompt


def short_contexts(settings: Settings, longest: Longest) -> list[str]:
    """Name the endpoints whose context is shorter than the longest prompt that they will be sent.

    Asks each for its list of models, which is free; one that does not say how long its context is passes.
    """
    return asyncio.run(_notes(settings, longest)) if longest else []


async def _notes(settings: Settings, longest: Longest) -> list[str]:
    transport = Transport()
    notes = []
    try:
        for (role, name, model), tokens in longest.items():
            endpoints = settings.pool(role, name)
            contexts = await asyncio.gather(*(_context(transport, endpoint, model) for endpoint in endpoints))
            known = [context for context in contexts if context is not None]
            if known and len(known) == len(contexts) and tokens > max(known):
                notes.append(
                    f"{model} has a context of {max(known):,} tokens, and a prompt of about {round(tokens):,} is among "
                    f"those that were looked at: what does not fit stays unscored; raise the server's context, make "
                    f"the recipe's chunks shorter, or name another {role}"
                )
    finally:
        await transport.close()
    return notes


async def _context(transport: Transport, endpoint: Endpoint, model: str) -> int | None:
    return (await transport.models(endpoint, _PATIENCE)).contexts.get(model)
