"""Tests of the sampling parameters that converters read from what publishers recommend."""

import json

from export.converters.generation_defaults import from_generation_config, from_gguf


def test_recommended_sampling_parameters_are_read():
    generation = {"temperature": 0.7, "top_k": 20, "do_sample": True, "eos_token_id": [2], "top_p": None}
    assert json.loads(from_generation_config(generation)["generation_defaults"]) == {"temperature": 0.7, "top_k": 20}
    metadata = {"general.sampling.temp": 0.6000000238418579, "general.sampling.top_k": 40, "general.name": "x"}
    assert json.loads(from_gguf(metadata)["generation_defaults"]) == {"temperature": 0.6, "top_k": 40}


def test_without_a_recommendation_the_parameter_is_omitted():
    assert from_generation_config({"eos_token_id": [2]}) == from_gguf({}) == {}
