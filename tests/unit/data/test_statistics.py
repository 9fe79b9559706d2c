"""Reference energies and scale of a training split."""

import numpy as np
import pytest
from ase import Atoms

from surefoot.data.read import Frame
from surefoot.data.statistics import measure, reference_energies

TRUE = {1: -13.5, 6: -1030.25, 8: -2042.75}
FORMULAS = ("H2O", "CH4", "CO2", "CH3OH", "H2", "C2H6O")


def frame(
    formula: str,
    energy: float | None = None,
    forces: np.ndarray | None = None,
    config_type: str = "Default",
) -> Frame:
    atoms = Atoms(formula)
    return Frame(
        atoms=atoms,
        energy=energy,
        forces=forces,
        group="g",
        config_type=config_type,
        file="f",
        index=0,
    )


def of_atoms(formula: str) -> float:
    """Σ E0 of the true reference energies."""
    return sum(TRUE[int(z)] for z in Atoms(formula).numbers)


def isolated(symbol: str, energy: float | None) -> Frame:
    return frame(symbol, energy, config_type="IsolatedAtom")


MOLECULES = [frame(formula, of_atoms(formula)) for formula in FORMULAS]
ISOLATED = [isolated("O", -2000.0), isolated("H", -10.0), isolated("C", -1000.0)]


def as_dict(statistics) -> dict[int, float]:
    return dict(zip(statistics.elements, statistics.energies, strict=True))


# --- references -----------------------------------------------------------------------------


def test_least_squares_recovers_energies_of_the_elements() -> None:
    found = measure(MOLECULES, "least_squares")
    assert found.elements == (1, 6, 8)
    assert as_dict(found) == pytest.approx(TRUE, rel=1e-9)
    assert found.source == "least squares over 6 frames"


def test_least_squares_weighs_by_energy_per_atom() -> None:
    """One element: the mean of E/N, not Σ E / Σ N."""
    frames = [frame("H2", -2.0), frame("H10", -30.0)]
    assert measure(frames, "least_squares").energies == pytest.approx((-2.0,))


def test_least_squares_of_noisy_energies(rng) -> None:
    frames = [
        frame(formula, of_atoms(formula) + float(rng.normal(scale=0.1)))
        for formula in FORMULAS
        for _ in range(200)
    ]
    assert as_dict(measure(frames, "auto")) == pytest.approx(TRUE, abs=0.05)


def test_compositions_that_do_not_fix_all_elements_say_so() -> None:
    frames = [frame("H2O", of_atoms("H2O"))] * 5
    found = measure(frames, "auto")
    assert "fix 1 of 2 combinations" in found.source
    assert "5 frames" in found.source
    energies = as_dict(found)
    assert 2 * energies[1] + energies[8] == pytest.approx(of_atoms("H2O"))
    # The shortest solution is along the composition.
    assert energies[1] == pytest.approx(2 * energies[8])


def test_unlabelled_frames_do_not_count_but_their_elements_do() -> None:
    found = measure([*MOLECULES, frame("N2")], "least_squares")
    assert found.elements == (1, 6, 7, 8)
    assert "fix 3 of 4" in found.source
    energies = as_dict(found)
    assert energies.pop(7) == pytest.approx(0.0, abs=1e-9)
    assert energies == pytest.approx(TRUE, rel=1e-9)


@pytest.mark.parametrize("references", ["auto", "isolated"])
def test_isolated_atoms_are_taken_as_they_are(references) -> None:
    found = measure([*MOLECULES, *ISOLATED], references)
    assert as_dict(found) == {1: -10.0, 6: -1000.0, 8: -2000.0}
    assert "IsolatedAtom" in found.source


@pytest.mark.parametrize(
    "oxygen",
    [
        [],
        [frame("O", -2000.0)],  # a lone atom that does not say it is a reference
        [isolated("O", None)],
        [isolated("O2", -4000.0)],
    ],
)
def test_an_element_without_an_isolated_atom(oxygen) -> None:
    frames = [*MOLECULES, *ISOLATED[1:], *oxygen]
    with pytest.raises(ValueError, match=r"isolated.* O has none.*least_squares"):
        measure(frames, "isolated")
    assert "least squares" in measure(frames, "auto").source


def test_auto_fits_without_isolated_atoms_if_an_element_has_none() -> None:
    """They are unbound, so they would pull the fit away from what molecules need."""
    found = measure([*MOLECULES, *ISOLATED[1:]], "auto")
    assert as_dict(found) == pytest.approx(TRUE, rel=1e-9)
    assert (
        found.source == "least squares over 6 frames; 2 isolated atoms left out because O has none"
    )
    alone = [frame("CO2", forces=np.ones((3, 3))), *ISOLATED[1:]]
    found = measure(alone, "auto")
    assert as_dict(found) == {1: 0.0, 6: 0.0, 8: 0.0}
    assert "2 isolated atoms left out because O has none" in found.source


def test_least_squares_may_be_preferred_to_isolated_atoms() -> None:
    found = measure([*MOLECULES, *ISOLATED], "least_squares")
    assert found.source == "least squares over 9 frames"
    assert found.energies != (-10.0, -1000.0, -2000.0)


def test_mapping() -> None:
    found = measure([*MOLECULES, *ISOLATED], {"H": -1.0, "O": -3.0, "C": -2.0, "N": -9.0})
    assert as_dict(found) == {1: -1.0, 6: -2.0, 8: -3.0}
    assert "mapping" in found.source


@pytest.mark.parametrize(
    ("mapping", "text"),
    [({"H": -1.0}, "no energy for C, O"), ({"H": -1.0, "Oo": 1.0}, "'Oo' is not the symbol")],
)
def test_mapping_with_missing_or_unknown_symbols(mapping, text) -> None:
    with pytest.raises(ValueError, match=text):
        measure(MOLECULES, mapping)


@pytest.mark.parametrize("references", ["auto", "isolated", "least_squares"])
def test_no_energies_at_all(references) -> None:
    frames = [frame("H2O", forces=np.ones((3, 3)))]
    energies, source = reference_energies(frames, (1, 8), references)
    assert energies == {1: 0.0, 8: 0.0}
    assert "no energies" in source


# --- scale ----------------------------------------------------------------------------------


def test_scale_is_the_root_mean_square_of_force_components(rng) -> None:
    small, large = rng.normal(size=(2, 3)), 5 * rng.normal(size=(6, 3))
    frames = [frame("H2", -1.0, small), frame("CH3OH", -2.0, large), frame("CO2", -3.0)]
    expected = np.sqrt((np.sum(small**2) + np.sum(large**2)) / 24)
    assert measure(frames, "least_squares").scale == pytest.approx(expected)
    atom = frame("O", -4.0, np.zeros((1, 3)), config_type="IsolatedAtom")
    assert measure([*frames, atom], "least_squares").scale == pytest.approx(expected)


def test_scale_without_forces_is_that_of_energies_per_atom() -> None:
    """The energies are true references plus ±0.3 eV per atom; the common part is no spread."""
    frames = [
        frame(formula, of_atoms(formula) + len(Atoms(formula)) * (0.1 + sign * 0.3))
        for formula in FORMULAS
        for sign in (-1, 1)
    ]
    references = {"H": TRUE[1], "C": TRUE[6], "O": TRUE[8]}
    assert measure(frames, references).scale == pytest.approx(0.3)
    assert measure([*frames, isolated("O", 0.0)], references).scale == pytest.approx(0.3)


@pytest.mark.parametrize(
    "frames",
    [
        [frame("H2O", of_atoms("H2O"))],
        [frame("H2O", of_atoms("H2O"), np.zeros((3, 3)))],
        [isolated("O", -1.0)],
        [frame("H2O")],
    ],
)
def test_no_spread_gives_scale_one(frames) -> None:
    assert measure(frames, "auto").scale == 1.0


def test_energies_that_have_a_reference_already() -> None:
    """Adsorption energies: nothing is fitted, and the scale is that of the config."""
    frames = [frame("CuO", -3.0, np.ones((2, 3))), frame("CuH", 2.0, np.ones((2, 3)))]
    found = measure(frames, "zero", 2.8873)
    assert found.energies == (0.0, 0.0, 0.0)
    assert found.scale == 2.8873
    assert "zero" in found.source
    assert measure(frames, "zero").scale == 1.0  # measured: the root mean square force
