"""The engine's compiled grammars accept exactly what their constraints allow."""

import pytest

from contract.paths import default_model_repository, latest_version
from tests.support.grammar_sampling import CASES, GrammarSampler, texts_outside
from tests.support.live import MODEL


@pytest.fixture(scope="module")
def sampler():
    return GrammarSampler(latest_version(default_model_repository() / MODEL))


@pytest.mark.parametrize("name", CASES)
def test_hundred_samples_are_within_the_constraint(sampler, name):
    outside, _ = texts_outside(sampler, name, 100)
    assert outside == []
