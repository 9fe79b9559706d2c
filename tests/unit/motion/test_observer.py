"""The guard in ASE's own runs with a saved potential: dynamics, relaxations, bands."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.md.verlet import VelocityVerlet
from ase.mep import NEB
from ase.optimize import FIRE

from surefoot.calculator import SurefootCalculator
from surefoot.heads import MeanVariance
from surefoot.motion.guard import Guard, NoUncertainty, Watch
from surefoot.motion.observer import AseGuard, LostGround
from surefoot.motion.surface import PredictorSurface
from surefoot.posteriors.predictor import driver


def worst(atoms: Atoms, calculator: SurefootCalculator) -> float:
    """The uncertainty of the least sure atom."""
    calculator.get_property("forces", atoms)
    return float(calculator.results["forces_uncertainty_norm"].max())


def bent(atoms: Atoms, far: float) -> Atoms:
    """With one hydrogen pulled away."""
    moved = atoms.copy()
    moved.positions[-1] += far * np.array([1.0, 0.4, 0.2])
    return moved


@pytest.mark.parametrize("shared", [False, True])
def test_it_stops_a_band(gated, small_structures, shared: bool) -> None:
    """The image in the middle is the least sure one, with one calculator or one for each."""
    start = small_structures["ethanol"]
    images = [bent(start, 0.0), *(bent(start, far) for far in (0.3, 1.2, 0.3)), bent(start, 0.1)]
    calculator = SurefootCalculator(gated)
    for image in images:
        image.calc = calculator if shared else SurefootCalculator(gated)
    band = NEB(images, allow_shared_calculator=shared, method="improvedtangent")
    scores = [worst(image, SurefootCalculator(gated)) for image in images[1:-1]]
    assert scores[1] > 1.05 * max(scores[0], scores[2])
    limit = float(np.sqrt(scores[1] * max(scores[0], scores[2])))
    kept: list[Atoms] = []
    optimizer = FIRE(band, logfile=None)  # type: ignore[arg-type]
    for number, image in enumerate(images[1:-1], 1):
        watch = Watch(guard=Guard(uncertainty=limit), record=kept.append)
        optimizer.attach(AseGuard(watch, image, place=f"image {number}"))
    with pytest.raises(LostGround, match="image 2, check 1: the potential is unsure"):
        optimizer.run(fmax=1e-6, steps=3)
    assert np.array_equal(kept[0].positions, images[2].positions)


def test_it_stops_a_relaxation(gated, small_structures) -> None:
    atoms = bent(small_structures["ethanol"], 1.2)
    atoms.calc = SurefootCalculator(gated)
    watch = Watch(guard=Guard(uncertainty=0.99 * worst(atoms, SurefootCalculator(gated))))
    optimizer = FIRE(atoms, logfile=None)
    optimizer.attach(AseGuard(watch, atoms))
    with pytest.raises(LostGround):
        optimizer.run(fmax=1e-6, steps=5)


def test_a_run_on_one_draw_asks_all_only_near_the_limits(gated, small_structures) -> None:
    asked: list[int] = []

    class Asked(PredictorSurface):
        def __call__(self, graph, *, stress, uncertainty):
            asked.append(len(graph.numbers))
            return super().__call__(graph, stress=stress, uncertainty=uncertainty)

    atoms = small_structures["ethanol"]
    atoms.calc = SurefootCalculator(driver(gated))
    atoms.get_forces()
    assert "forces_uncertainty_norm" not in atoms.calc.results
    ood = float(atoms.calc.results["ood"])
    watch = Watch(guard=Guard(uncertainty=1e9, near_ood=1.5 * ood))
    surface = Asked(predictor=gated)
    dynamics = VelocityVerlet(atoms, 0.1)
    observer = AseGuard(watch, atoms, surface)
    dynamics.attach(observer)
    dynamics.run(3)
    assert asked == []
    limit = 0.99 * worst(atoms, SurefootCalculator(gated))
    observer.watch = Watch(guard=Guard(uncertainty=limit, near_ood=0.5 * ood))
    with pytest.raises(LostGround):
        observer()
    assert asked == [9]


def test_what_a_head_says_of_one_draw_is_no_spread(gated, small_structures) -> None:
    """`near_energy` is for closed forms; a head that judges has an error bar for each draw too."""
    potential = replace(gated.potential, head=MeanVariance(width=4))
    judged = replace(gated, potential=potential, gate=None)
    judged = replace(judged, weights=potential.init_members(0, 3, torch.float64))
    atoms = small_structures["ethanol"]
    atoms.calc = SurefootCalculator(driver(judged))
    watch = Watch(guard=Guard(uncertainty=1e-9, near_energy=1e6))
    observer = AseGuard(watch, atoms, PredictorSurface(predictor=judged))
    with pytest.raises(NoUncertainty, match="none that needs no draws"):
        observer()


def test_a_shortcut_needs_somebody_to_ask(gated, small_structures) -> None:
    atoms = small_structures["ethanol"]
    atoms.calc = SurefootCalculator(gated)
    with pytest.raises(ValueError, match="there is nothing to ask"):
        AseGuard(Watch(guard=Guard(uncertainty=1.0, near_ood=1.0)), atoms)


def test_what_it_records_says_nothing_of_another_place(gated, small_structures) -> None:
    atoms = small_structures["ethanol"]
    atoms.info |= {"ood": 7.0, "bias_energy": 7.0, "mine": 7.0}
    atoms.calc = SurefootCalculator(gated)
    kept: list[Atoms] = []
    AseGuard(Watch(guard=Guard(uncertainty=1e-9, action="record"), record=kept.append), atoms)()
    assert {"mine", "guard_score"} <= set(kept[0].info)
    assert not {"ood", "bias_energy"} & set(kept[0].info)
