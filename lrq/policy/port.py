"""What sampling is asked for and what it gives back; standard library only."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from lrq.domain.records import Chunk, Message

# How the chat template is filled, in training as in sampling: control tokens inside a document stay plain text, so that
# a document can close no turn and open none. As `chat_template_kwargs` of a row, TRL reads it too.
CHAT_TEMPLATE: Mapping[str, Any] = {"sanitize_control_tokens": True}

ShouldStop = Callable[[], bool]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How responses are drawn (LongReward, section 3.3: ten at temperature 1)."""

    n: int = 10
    temperature: float = 1.0  # 0: the likeliest token each time
    top_p: float = 1.0
    max_new_tokens: int = 1024
    seed: int = 0  # the run's
    max_prompt_tokens: int | None = None  # None: what the model can take, as far as a server says it
    over_long: Literal["cut", "refuse"] = "cut"


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One text the policy is asked, known by (item, round, index)."""

    item: str  # the user's id: the same in every run of the same file
    messages: Sequence[Message]
    context: str = ""  # the long text inside the messages: the only part that may be cut
    index: int = 0
    round: int = 0
    at: float | None = None  # seconds since 1970 that a chat template takes for now; None: the clock's


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """One response, or the reason why there is none."""

    k: int
    text: str | None  # its answer, for the judge and for people; None: see the reason
    reason: str = ""  # "empty", "over_long", "out_of_memory", "content_filter", "no_choices", or a server's refusal
    finish: str = ""  # "stop", or "length" where max_new_tokens cut it short
    tokens: int | None = None  # generated, the end included; None: the server gives only the sum
    ids: tuple[int, ...] = ()  # what was drawn, token by token, the end included; empty: the server gave only text
    written: str | None = None  # all that was written, thoughts and control tokens too; None: nothing but the text
    form: str = ""  # the message that renders to these ids, as `lrq.policy.rendering` names it; empty: none does


@dataclass(frozen=True, kw_only=True)
class Samples:
    """All that one prompt brought, and the very prompt that was sampled."""

    responses: tuple[Sampled, ...]  # by k
    messages: tuple[Message, ...]  # after the cut
    cut: Chunk | None = None  # characters left out of the context; what was read is context[:start] + context[end:]
    prompt_tokens: int = 0  # prefilled once for all responses; 0: the server did not say
    completion_tokens: int = 0  # of all responses together
    seconds: float = 0.0  # wall time of this prompt alone: tokens per second are completion_tokens / seconds
    calls: tuple[str, ...] = ()  # keys of the paid calls
    # How the prompt was rendered, so that it can be again: `lrq.policy.local`; empty: by a server
    rendering: Mapping[str, Any] = field(default_factory=dict)


class Policy(Protocol):
    """The model that answers; one per process."""

    fingerprint: str  # of weights, settings and tokenizer; of a server, of its address and model name

    async def sample(
        self, prompt: Prompt, sampling: Sampling, *, ks: Sequence[int] | None = None, should_stop: ShouldStop = ...
    ) -> Samples:
        """Return the responses `ks` of the `sampling.n` (None: all of them).

        Raises Stopping once `should_stop` says so, RunHalted from a paid call, LrqError for settings that cannot be.
        """
        ...

    def release(self) -> None:
        """Give the accelerator up, after the sample in progress."""
        ...

    def restore(self) -> None:
        """Take it back."""
        ...


def never() -> bool:
    return False
