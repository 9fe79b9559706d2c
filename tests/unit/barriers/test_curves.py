"""Curves of saved potentials: draws, closed forms, and what is the same in all batches."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms

from surefoot.barriers.curves import SAMPLES, predict_curves
from surefoot.barriers.heights import scan_barrier
from surefoot.blocks.reference import Baseline, UnknownElement
from surefoot.data.batches import BatchLimits
from surefoot.data.convert import to_graph
from surefoot.graph import collate
from surefoot.heads import Scalar
from surefoot.models import Schnet
from surefoot.posteriors.ensemble import Ensemble
from surefoot.posteriors.posterior import Single
from surefoot.posteriors.predictor import Calibration, Predictor, build_predictor
from surefoot.potential import Potential

from .conftest import transfer


def ensemble(members: int = 5, difference: float | None = 1.7) -> Predictor:
    baseline = Baseline(elements=(1, 6), energies=(-1.0, -2.0), scale=0.3, neighbors=2.0)
    potential = Potential(
        model=Schnet(features=8, interactions=1, gaussians=10, cutoff=4.0),
        head=Scalar(),
        baseline=baseline,
    )
    weights = potential.init_members(0, members, torch.float64)
    calibration = Calibration(energy=1.3, difference=difference, source="a test")
    return build_predictor(potential, Ensemble(weights), calibration, {})


def test_curves_of_members() -> None:
    """Those of each member by itself, about their mean."""
    predictor = ensemble()
    paths = [transfer(5), transfer(4, 0.9)]
    done: list[int] = []
    curves = predict_curves(predictor, paths, limits=BatchLimits(graphs=2), progress=done.append)
    assert done == [2, 2, 2, 2, 1]
    assert [len(curve.energies) for curve in curves] == [5, 4]
    for curve, path in zip(curves, paths, strict=True):
        (alone,) = predict_curves(predictor, [path])
        np.testing.assert_allclose(curve.deviations, alone.deviations, atol=1e-10)
        assert curve.freedom == 4
        assert curve.factor == 1.7
        np.testing.assert_allclose(curve.deviations.mean(0), 0.0, atol=1e-10)
        np.testing.assert_allclose(curve.std, 1.3 * curve.deviations.std(0, ddof=1), rtol=1e-6)
    assert predict_curves(predictor, []) == []


def test_the_error_of_a_difference_is_that_of_the_energy_factor() -> None:
    """Var(E_a − E_b) = |z_a − z_b|²."""
    predictor, path = ensemble(), transfer(5)
    (curve,) = predict_curves(predictor, [path])
    z = predictor(collate([to_graph(atoms, 4.0, 0, 2) for atoms in path])).energy_factor
    assert z is not None
    np.testing.assert_allclose(
        curve.from_first(), (z - z[:1]).norm(dim=1).numpy(), rtol=1e-5, atol=1e-9
    )


def test_curves_of_a_closed_form_are_drawn_together(monkeypatch) -> None:
    """Images of a path have the covariance of the posterior, and a maximum wherever it falls."""
    predictor = ensemble()
    # As if the z of the members came from a posterior that needs no draws.
    monkeypatch.setattr("surefoot.barriers.curves.knows_energies", lambda _: True)
    (curve,) = predict_curves(predictor, [transfer(5)])
    monkeypatch.undo()
    (members,) = predict_curves(predictor, [transfer(5)])
    assert len(curve.deviations) == curve.freedom == SAMPLES
    found, expected = curve.from_first(), members.from_first()
    np.testing.assert_allclose(found, expected, rtol=0.05, atol=1e-9)
    covariance = np.cov(members.deviations.T)
    drawn = curve.deviations.T @ curve.deviations / SAMPLES
    np.testing.assert_allclose(drawn, covariance, atol=0.06 * covariance.max())
    ours, theirs = scan_barrier(curve, None), scan_barrier(members, None)
    assert ours.value == theirs.value
    assert ours.std > ours.uncalibrated > 0


def test_one_set_of_weights_has_no_error_bar() -> None:
    many = ensemble(2)
    one = {name: value[:1] for name, value in many.weights.items()}
    predictor = replace(many, weights=one, posterior=Single(one))
    (curve,) = predict_curves(predictor, [transfer(5)])
    assert curve.deviations is None
    assert scan_barrier(curve, None).std is None
    assert curve.from_first() is None


def test_unknown_elements() -> None:
    with pytest.raises(UnknownElement, match="image 0"):
        predict_curves(ensemble(), [[Atoms("CHF", positions=np.diag([1.0, 2.0, 3.0]))]])
