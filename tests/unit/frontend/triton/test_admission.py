"""So many requests at once, and no more; whoever leaves makes room."""

import pytest

from frontend.errors import Overloaded
from frontend.triton.admission import Admission


def test_the_limit_is_by_model_and_room_comes_back():
    admission = Admission()
    with admission.enter("a", 2), admission.enter("a", 2):
        with pytest.raises(Overloaded), admission.enter("a", 2):
            pytest.fail("one too many")
        with admission.enter("b", 1):
            pass
    with admission.enter("a", 1):
        pass


def test_a_failure_makes_room_too():
    admission = Admission()
    with pytest.raises(ValueError, match="x"), admission.enter("a", 1):
        raise ValueError("x")
    with admission.enter("a", 1):
        pass
