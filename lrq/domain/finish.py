"""How a reply ended, in the words of many servers: only what is known to mean the end is an end."""

import re
from functools import lru_cache
from typing import Literal

Finish = Literal["end", "length", "withheld", "cut"]

# OpenAI, Anthropic, Google, Cohere, Mistral, Bedrock, TGI, llama.cpp, Together, AI21 and their gateways.
_END = {
    "stop", "stopped", "end", "end_turn", "endoftext", "end_of_text", "eos", "eos_token", "stop_sequence", "stop_token",
    "complete", "completed", "done", "finish", "finished", "success", "normal", "eos_found", "eos_token_id", "im_end",
    "stop_string", "stop_str", "stop_token_id", "stopped_eos", "stopped_word", "eot", "eot_id", "eom", "eom_id",
    "endturn", "end_of_turn", "end_of_sequence", "end_of_message", "eos_reached", "matched_stop", "hit_stop_token",
    "completed_normally", "natural",
}  # fmt: skip
_LENGTH = {
    "length", "limit", "max_length", "max_tokens", "max_new_tokens", "max_output_tokens", "max_completion_tokens",
    "model_length", "token_limit", "context_length", "model_context_window_exceeded", "incomplete",
    "max_tokens_reached", "token_limit_reached", "output_limit", "stopped_limit", "error_limit", "length_limit",
    "length_capped", "max_tokens_exceeded", "context_length_exceeded", "context_window_exceeded", "out_of_tokens",
    "truncated", "too_long",
}  # fmt: skip
_WITHHELD = {
    "content_filter", "content_filtered", "content_moderation", "sensitive", "safety", "recitation", "blocklist",
    "prohibited_content", "spii", "image_safety", "guardrail_intervened", "refusal", "refused", "moderation",
    "blocked", "filtered", "censored", "error_toxic", "model_armor", "jailbreak", "content_policy",
    "content_policy_violation", "risk", "safety_filter", "content_filter_results", "content_blocked", "moderated",
    "flagged", "toxicity", "policy_violation", "language", "unsafe",
}  # fmt: skip
_PREFIX = re.compile(r"^(?:finish(?:ed)?|stop|done)_?(?:reason)?[_.](?=\w)")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


@lru_cache(1000)
def finish_of(reason: str) -> Finish:
    """Return what a server's finish reason means: the end, no room left, a text that was withheld, or any other cut.

    What follows a colon in `reason` is the server's detail. A server that gives no reason is taken to have ended: the
    transport writes "stop" for it.
    """
    word = _CAMEL.sub("_", reason[:80].split(":", 1)[0].strip(" <|>"))
    word = re.sub(r"[\s-]+", "_", word.casefold())
    if word not in _END | _LENGTH | _WITHHELD:
        word = _PREFIX.sub("", word)
    if word in _END:
        return "end"
    if word in _LENGTH:
        return "length"
    return "withheld" if word in _WITHHELD else "cut"
