"""What one simulated server is told to do."""

from collections.abc import Mapping
from dataclasses import dataclass, field

NOTICE = "not a language model"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Settings of one server; rates are shares of requests in [0, 1]."""

    host: str = "127.0.0.1"
    port: int = 0  # 0: any free one
    models: tuple[str, ...] = ()  # none named: every name is served
    api_key: str | None = None
    hosts: tuple[str, ...] = ()  # names besides this machine's own under which it is asked
    seed: int = 0
    latency_ms: float = 0.0  # mean time before a reply
    jitter_ms: float = 0.0  # the latency is uniform in mean ± jitter
    window: float = 60.0  # seconds the request and token limits look back
    rpm: int | None = None  # requests per window
    tpm: int | None = None  # prompt and completion tokens per window
    concurrency: int | None = None  # requests at once; more are refused with 429
    slots: int | None = None  # requests at once; more wait, as on a self-hosted server
    headers: bool = True  # send x-ratelimit-* and Retry-After
    quota: int | None = None  # requests until the account has no credit left
    max_context: int | None = None  # tokens of prompt and completion a model takes
    faults: Mapping[str, float] = field(default_factory=dict)  # fault's name → rate, see sim.faults
    hang_seconds: float = 600.0
    reasoning: bool = False  # reasoning goes into reasoning_content, as reasoning judges do
    canned: bool = False  # one fixed tiny reply to everything
    dimensions: int = 256  # length of an embedding
