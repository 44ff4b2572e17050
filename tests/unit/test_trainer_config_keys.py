"""A model's configuration under the names of both generations of its readers."""

from typing import Any

import pytest

from lrq.trainer.config_keys import for_all_readers

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 64}


@pytest.mark.parametrize(
    ("base", "saved", "expected"),
    [
        (  # a base of transformers 4 keeps its keys, the library's new one is added
            {"rope_theta": 5e5, "rope_scaling": LLAMA3, "torch_dtype": "bfloat16"},
            {"rope_parameters": {**LLAMA3, "rope_theta": 5e5}, "dtype": "float32"},
            {
                "rope_theta": 5e5,
                "rope_scaling": LLAMA3,
                "rope_parameters": {**LLAMA3, "rope_theta": 5e5},
                "dtype": "bfloat16",
                "torch_dtype": "bfloat16",
            },
        ),
        (  # a base of transformers 5 gets the old ones
            {"rope_parameters": {**LLAMA3, "rope_theta": 5e5}, "dtype": "bfloat16"},
            {},
            {
                "rope_theta": 5e5,
                "rope_scaling": {**LLAMA3, "type": "llama3"},
                "rope_parameters": {**LLAMA3, "rope_theta": 5e5},
                "dtype": "bfloat16",
                "torch_dtype": "bfloat16",
            },
        ),
        (  # no scaling is said as such
            {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "partial_rotary_factor": 0.5}},
            {},
            {
                "rope_theta": 1e6,
                "partial_rotary_factor": 0.5,
                "rope_scaling": None,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "partial_rotary_factor": 0.5},
            },
        ),
        (  # two kinds of layers, as Gemma 3 has them
            {
                "rope_parameters": {
                    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                }
            },
            {},
            {
                "rope_theta": 1e6,
                "rope_local_base_freq": 1e4,
                "rope_scaling": {"rope_type": "linear", "type": "linear", "factor": 8.0},
            },
        ),
        ({"hidden_size": 8}, {"hidden_size": 8, "use_cache": False}, {"hidden_size": 8}),
    ],
)
def test_each_setting_stands_under_both_names(
    base: dict[str, Any], saved: dict[str, Any], expected: dict[str, Any]
) -> None:
    """Nothing of the base is lost or changed, and what only the library of the training knows is left out."""
    merged = for_all_readers(base, saved)
    assert merged == {**base, **expected}


def test_the_text_part_of_a_multimodal_model_is_treated_alike() -> None:
    """Inner configurations get their two names, too."""
    base = {"model_type": "gemma3", "text_config": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}}
    text = for_all_readers(base, {})["text_config"]
    assert (text["rope_theta"], text["rope_scaling"]) == (1e6, None)
