import numpy as np
import pytest

from surefoot.label.labeler import check_state

METHYL = np.array([6, 1, 1, 1])


@pytest.mark.parametrize(("charge", "spin"), [(0, 2), (0, 4), (1, 1), (-1, 3), (9, 1), (8, 2)])
def test_possible_states_pass(charge: int, spin: int) -> None:
    check_state(METHYL, charge, spin)


@pytest.mark.parametrize(
    ("charge", "spin", "said"),
    [
        (0, 1, "does not fit an odd number of electrons .9 at charge 0."),
        (1, 2, "does not fit an even number of electrons .8 at charge 1."),
        (0, 0, "spin 0 is no multiplicity"),
        (7, 4, "at most spin 3 is allowed"),
        (10, 1, "charge 10 leaves -1 electrons"),
    ],
)
def test_impossible_states_are_named(charge: int, spin: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_state(METHYL, charge, spin)
