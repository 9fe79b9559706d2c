"""ASE's view of a Predictor: names, caching, stress, batches, and ASE's own algorithms."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.md.verlet import VelocityVerlet
from ase.mep.neb import NEB
from ase.optimize import BFGS

from surefoot.blocks.conditioning import States, UnknownState
from surefoot.blocks.reference import Baseline, UnknownElement
from surefoot.calculator import SurefootCalculator, predict_atoms
from surefoot.data.batches import BatchLimits
from surefoot.data.convert import to_graph, to_samples
from surefoot.data.read import Frame
from surefoot.heads import Scalar
from surefoot.heads.sphere import Sphere
from surefoot.models import Schnet
from surefoot.models.scn import Scn
from surefoot.posteriors import predictor as module
from surefoot.posteriors.ensemble import Ensemble
from surefoot.posteriors.judge import predict_samples
from surefoot.posteriors.posterior import Single
from surefoot.posteriors.predictor import (
    Calibration,
    Predictor,
    build_predictor,
)
from surefoot.potential import Potential


def make_predictor(
    members: int = 3, factor: float = 2.0, states: States | None = None
) -> Predictor:
    potential = Potential(
        model=Schnet(features=8, interactions=2, gaussians=10, cutoff=4.0),
        head=Scalar(),
        baseline=Baseline(
            elements=(1, 6, 8, 29), energies=(-1.0, -2.0, -3.0, -4.0), scale=0.3, neighbors=10.0
        ),
        states=states,
    )
    if members == 1:
        posterior = Single(potential.init(0, torch.float64))
        return build_predictor(potential, posterior, Calibration(), {})
    weights = potential.init_members(0, members, torch.float64)
    calibration = Calibration(energy=factor, forces=factor, stress=factor, source="a test")
    return build_predictor(potential, Ensemble(weights), calibration, {})


def crystal() -> Atoms:
    atoms = bulk("Cu", cubic=True).repeat((2, 1, 1))
    atoms.rattle(0.1, seed=0)
    return atoms


def test_results_carry_the_names_of_the_design() -> None:
    atoms = crystal()
    atoms.calc = SurefootCalculator(make_predictor(), members=True)
    atoms.get_potential_energy()
    results = atoms.calc.results
    assert set(results) == {
        "energy", "energy_uncertainty", "energy_epistemic", "energy_ensemble", "free_energy",
        "forces", "forces_uncertainty", "forces_epistemic", "forces_uncertainty_norm",
        "forces_ensemble", "stress", "stress_uncertainty", "stress_epistemic",
    }  # fmt: skip
    assert results["forces_uncertainty"].shape == (8, 3)
    assert results["forces_ensemble"].shape == (3, 8, 3)
    assert results["stress"].shape == results["stress_uncertainty"].shape == (6,)
    spread = results["energy_ensemble"].std(ddof=1)
    assert results["energy_uncertainty"] == pytest.approx(2.0 * spread)
    by_hand = 2.0 * results["forces_ensemble"].std(axis=0, ddof=1)
    assert np.allclose(results["forces_uncertainty"], by_hand)
    norm = np.sqrt((by_hand**2).sum(1))
    assert np.allclose(results["forces_uncertainty_norm"], norm)


def direct(form: Literal["smooth", "published"]) -> Predictor:
    """Forces of their own."""
    model = Scn(
        form=form, layers=1, lmax=1, channels=4, hidden=8, edge=4, gaussians=6, samples=16,
        cutoff=4.0, taps=1, mirrors="one",
    )  # fmt: skip
    potential = replace(make_predictor().potential, model=model, head=Sphere(forces="direct"))
    posterior = Single(potential.init(0, torch.float64))
    return build_predictor(potential, posterior, Calibration(), {})


@pytest.mark.parametrize("form", ["smooth", "published"])
def test_direct_forces_have_no_stress(form) -> None:
    """The published form has no derivative to take; elsewhere it is no slope of these forces."""
    predictor, atoms = direct(form), crystal()
    atoms.calc = SurefootCalculator(predictor)
    assert atoms.get_forces().shape == (8, 3)
    assert "stress" not in atoms.calc.results
    with pytest.raises(PropertyNotImplementedError, match="are direct and no slope of its energy"):
        atoms.get_stress()
    (result,) = predict_atoms(predictor, [atoms])
    assert "forces" in result
    assert "stress" not in result
    frame = Frame(atoms=atoms, stress=np.eye(3), index=0, group="g",
                  config_type="c", file="f")  # fmt: skip
    assert predict_samples(predictor, to_samples([frame], 4.0)).prediction.stress is None


def test_stress_can_be_left_out() -> None:
    """Forces are the same without it."""
    atoms, other = crystal(), crystal()
    atoms.calc = SurefootCalculator(make_predictor())
    other.calc = SurefootCalculator(make_predictor(), stress=False)
    assert np.array_equal(atoms.get_forces(), other.get_forces())
    assert "stress" in atoms.calc.results
    assert "stress" not in other.calc.results
    with pytest.raises(PropertyNotImplementedError, match="made with `stress=False`"):
        other.get_stress()


def test_one_member_claims_no_error_bar() -> None:
    atoms = molecule("CH3OH")
    atoms.calc = SurefootCalculator(make_predictor(members=1))
    atoms.get_potential_energy()
    assert set(atoms.calc.results) == {"energy", "free_energy", "forces"}


def test_forces_and_stress_are_derivatives() -> None:
    atoms = crystal()
    atoms.calc = SurefootCalculator(make_predictor())
    forces, stress = atoms.get_forces(), atoms.get_stress(voigt=False)
    step = 1e-4
    moved = atoms.copy()
    moved.calc = atoms.calc
    energies = []
    for sign in (1, -1):
        moved.positions = atoms.positions
        moved.positions[3, 1] += sign * step
        energies.append(moved.get_potential_energy())
    assert forces[3, 1] == pytest.approx(-(energies[0] - energies[1]) / (2 * step), abs=1e-6)
    energies = []
    for sign in (1, -1):
        strained = atoms.copy()
        strain = np.eye(3)
        strain[0, 1] = strain[1, 0] = 0.5 * sign * step
        strained.set_cell(atoms.cell @ strain, scale_atoms=True)
        strained.calc = atoms.calc
        energies.append(strained.get_potential_energy())
    slope = (energies[0] - energies[1]) / (2 * step) / atoms.get_volume()
    assert stress[0, 1] == pytest.approx(slope, abs=1e-8)


@pytest.mark.parametrize(
    "change",
    [
        lambda atoms: atoms.info.update(charge=1),
        lambda atoms: atoms.info.update(spin=3),
        lambda atoms: atoms.set_cell(atoms.cell * 1.01),
        lambda atoms: atoms.set_pbc((True, True, False)),
        lambda atoms: atoms.positions.__setitem__((0, 0), 0.05),
        lambda atoms: atoms.numbers.__setitem__(0, 8),
    ],
    ids=["charge", "spin", "cell", "pbc", "positions", "numbers"],
)
def test_changes_are_noticed(change) -> None:
    atoms = crystal()
    atoms.calc = SurefootCalculator(make_predictor())
    atoms.get_potential_energy()
    assert not atoms.calc.calculation_required(atoms, ["energy"])
    change(atoms)
    assert atoms.calc.calculation_required(atoms, ["energy"])
    atoms.get_potential_energy()
    assert not atoms.calc.calculation_required(atoms, ["energy"])


def test_unknown_element_is_named() -> None:
    atoms = Atoms("NO", positions=[[0, 0, 0], [0, 0, 1.2]])
    atoms.calc = SurefootCalculator(make_predictor())
    with pytest.raises(UnknownElement, match="element N "):
        atoms.get_potential_energy()


def test_many_structures_in_one_call_equal_one_by_one() -> None:
    predictor = make_predictor()
    structures = [molecule("CH3OH"), crystal(), molecule("H2O"), Atoms("O"), crystal()]
    for limits in (BatchLimits(), BatchLimits(graphs=2), BatchLimits(atoms=7)):
        together = predict_atoms(predictor, structures, members=True, limits=limits)
        for atoms, results in zip(structures, together, strict=True):
            alone = predict_atoms(predictor, [atoms], members=True)[0]
            assert set(results) == set(alone)
            assert ("stress" in results) == bool(atoms.pbc.all())
            for name, value in results.items():
                assert np.allclose(value, alone[name], rtol=1e-9, atol=1e-11), name


def test_relaxation_lowers_the_energy() -> None:
    atoms = molecule("CH3OH")
    atoms.rattle(0.1, seed=1)
    atoms.calc = SurefootCalculator(make_predictor())
    before = atoms.get_potential_energy()
    BFGS(atoms, logfile=None).run(fmax=0.05, steps=100)
    assert atoms.get_potential_energy() < before
    assert np.abs(atoms.get_forces()).max() < 0.06


def test_a_band_runs_on_one_calculator() -> None:
    first = molecule("CH3OH")
    last = first.copy()
    last.positions[-1] += 0.3
    images = [first.copy() for _ in range(4)] + [last]
    calculator = SurefootCalculator(make_predictor())
    for image in images:
        image.calc = calculator
    band = NEB(images, allow_shared_calculator=True, method="improvedtangent")
    band.interpolate()
    BFGS(band, logfile=None).run(fmax=0.5, steps=5)
    assert all(np.isfinite(image.get_potential_energy()) for image in images)


@pytest.mark.parametrize("kind", ["molecule", "crystal"])
def test_energy_is_conserved(kind: str) -> None:
    """NVE: the total energy wanders by far less than the kinetic energy does."""
    atoms = molecule("CH3OH") if kind == "molecule" else crystal()
    atoms.calc = SurefootCalculator(make_predictor())
    BFGS(atoms, logfile=None).run(fmax=0.05, steps=100)
    scale = np.sqrt(atoms.get_masses() * units.kB * 300)
    atoms.set_momenta(np.random.default_rng(0).normal(size=(len(atoms), 3)) * scale[:, None])
    dynamics = VelocityVerlet(atoms, timestep=0.25 * units.fs)
    totals, kinetic = [], []
    for _ in dynamics.irun(steps=200):
        totals.append(atoms.get_total_energy())
        kinetic.append(atoms.get_kinetic_energy())
    drift = abs(np.mean(totals[-50:]) - np.mean(totals[:50])) / len(atoms)
    assert np.ptp(kinetic) > 1e-3, "nothing moved"
    assert np.ptp(totals) < 0.05 * np.ptp(kinetic)
    assert drift < 1e-4  # eV/atom over 50 fs


def test_state_that_was_not_trained_on_is_refused() -> None:
    atoms = molecule("CH3OH")
    atoms.info |= {"charge": 1, "spin": 2}
    predictor = replace(make_predictor(), provenance={"states": [[0, 1], [0, 2]]})
    atoms.calc = SurefootCalculator(predictor)
    with pytest.raises(UnknownState, match="charge 1 and spin 2"):
        atoms.get_potential_energy()
    atoms.info["charge"] = 0
    assert np.isfinite(atoms.get_potential_energy())


def test_charge_and_spin_of_a_structure_choose_its_surface() -> None:
    """A result of one state is never given for another."""
    atoms = molecule("CH3OH")
    atoms.calc = SurefootCalculator(make_predictor(states=States(((0, 1), (0, 3), (1, 2)))))
    energies, stated = [], [(0, 1), (0, 3), (1, 2), (0, 1)]
    for charge, spin in stated:
        atoms.info |= {"charge": charge, "spin": spin}
        energies.append(atoms.get_potential_energy())
        assert np.abs(atoms.get_forces()).max() > 0
    assert energies[0] == energies[3]
    assert min(abs(np.diff(energies[:3]))) > 1e-3
    copies = []
    for charge, spin in stated:
        copies.append(atoms.copy())
        copies[-1].info |= {"charge": charge, "spin": spin}
    together = predict_atoms(atoms.calc.predictor, copies)
    assert [result["energy"] for result in together] == pytest.approx(energies, rel=1e-12)


@pytest.mark.parametrize("info", [{"charge": 1, "spin": 1}, {"charge": 0}, {}, {"spin": 0}])
def test_a_state_that_is_not_in_the_table_is_refused(info) -> None:
    atoms = molecule("CH3OH")
    atoms.info |= info
    predictor = make_predictor(states=States(((0, 1), (1, 2))))
    atoms.calc = SurefootCalculator(predictor)
    with pytest.raises(UnknownState, match=r"^the structure: .*charge 0 and spin 1, charge 1 and"):
        atoms.get_potential_energy()
    with pytest.raises(UnknownState, match=r"^structure 0: "):
        predict_atoms(predictor, [atoms])


def test_members_in_portions_are_the_same_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded by taking members a few at a time where a structure is large."""
    predictor, atoms = make_predictor(members=5), crystal()
    whole = predict_atoms(predictor, [atoms], members=True)[0]
    edges = to_graph(atoms, predictor.cutoff).edge_index.shape[1]
    monkeypatch.setattr(module, "EVALUATION", BatchLimits(edges=2 * edges))
    parts = predict_atoms(predictor, [atoms], members=True)[0]
    for name, value in whole.items():
        assert np.allclose(value, parts[name], rtol=1e-12, atol=1e-13), name
