"""The limit on the number of requests in progress per model. A request no longer counts when it ends."""

import pytest

from frontend.errors import Overloaded
from frontend.triton.admission import AdmissionLimiter


def test_the_limit_is_per_model_and_counts_only_requests_in_progress():
    admission = AdmissionLimiter()
    with admission.enter("a", 2), admission.enter("a", 2):
        with pytest.raises(Overloaded), admission.enter("a", 2):
            pytest.fail("over the limit")
        with admission.enter("b", 1):
            pass
    with admission.enter("a", 1):
        pass


def test_a_failed_request_no_longer_counts():
    admission = AdmissionLimiter()
    with pytest.raises(ValueError, match="x"), admission.enter("a", 1):
        raise ValueError("x")
    with admission.enter("a", 1):
        pass
