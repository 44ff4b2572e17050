"""How a reply ended, in the words of many servers."""

import pytest

from lrq.domain.finish import finish_of


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("stop", "end"),
        ("STOP", "end"),
        ("FINISH_REASON_STOP", "end"),
        ("end_turn", "end"),
        ("stop-sequence", "end"),
        ("eos_token", "end"),
        ("COMPLETE", "end"),
        ("FinishReason.STOP", "end"),
        ("stopSequence", "end"),
        ("<|im_end|>", "end"),
        ("eos", "end"),
        ("eos_found", "end"),
        ("FinishReason.MAX_TOKENS", "length"),
        ("maxTokens", "length"),
        ("token_limit_reached", "length"),
        ("contentFiltered", "withheld"),
        ("guardrailIntervened", "withheld"),
        ("MODEL_ARMOR", "withheld"),
        ("content_policy_violation", "withheld"),
        ("pause_turn", "cut"),
        ("<|eot_id|>", "end"),
        ("EndOfTurn", "end"),
        ("FINISHED_STOPPED", "end"),
        ("matched_stop", "end"),
        ("FINISHED_LENGTH_CAPPED", "length"),
        ("context_length_exceeded", "length"),
        ("truncated", "length"),
        ("LANGUAGE", "withheld"),
        ("flagged", "withheld"),
        ("stop_reason_of_its_own", "cut"),
        ("length", "length"),
        ("MAX_TOKENS", "length"),
        ("model_length", "length"),
        ("model_context_window_exceeded", "length"),
        ("content_filter", "withheld"),
        ("content_filter: VIOLENCE", "withheld"),
        ("SAFETY", "withheld"),
        ("RECITATION", "withheld"),
        ("sensitive", "withheld"),
        ("abort", "cut"),
        ("error", "cut"),
        ("repetition", "cut"),
        ("network_error", "cut"),
        ("insufficient_system_resource", "cut"),
        ("tool_calls", "cut"),
        ("MALFORMED_FUNCTION_CALL", "cut"),
        ("OTHER", "cut"),
        ("null", "cut"),
        ("", "cut"),
        ("a word of tomorrow", "cut"),
    ],
)
def test_only_what_is_known_to_mean_the_end_is_an_end(reason: str, finish: str) -> None:
    """An unknown reason is a cut: a reply is read if it is known to be whole."""
    assert finish_of(reason) == finish
