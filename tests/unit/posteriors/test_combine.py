"""Members that were trained apart are one ensemble, or a sentence says why not."""

from dataclasses import replace

import pytest
import torch
from ase.build import molecule

from surefoot.blocks.reference import Baseline
from surefoot.data.convert import to_graph
from surefoot.heads.scalar import Scalar
from surefoot.models.schnet import Schnet
from surefoot.posteriors.calibration import Calibration
from surefoot.posteriors.combine import combine
from surefoot.posteriors.ensemble import Ensemble
from surefoot.posteriors.posterior import Single
from surefoot.posteriors.predictor import Predictor, build_predictor, load_predictor
from surefoot.potential import Potential

POTENTIAL = Potential(
    model=Schnet(cutoff=3.0, features=4, interactions=1, gaussians=5),
    head=Scalar(),
    baseline=Baseline(elements=(1, 8), energies=(-1.0, -3.0), scale=0.5, neighbors=2.0),
)


def member(seed: int, potential: Potential = POTENTIAL, dtype=torch.float64) -> Predictor:
    weights = potential.init(seed, dtype)
    provenance = {"files": {"train.xyz": "abc"}, "config": {"train": {"seed": seed}}}
    return build_predictor(potential, Single(weights), Calibration(energy=3.0), provenance)


def test_mean_and_spread_are_those_of_the_members(tmp_path) -> None:
    members = {f"{seed}": member(seed) for seed in range(3)}
    found = combine(members)
    graph = to_graph(molecule("H2O"), 3.0)
    alone = torch.stack([one(graph).energy.mean for one in members.values()])
    together = found(graph)
    torch.testing.assert_close(together.energy.mean, alone.mean(0))
    assert together.energy.epistemic is not None
    torch.testing.assert_close(together.energy.epistemic, alone.var(0))  # not calibrated
    assert found.provenance["files"] == {"train.xyz abc": "abc"}
    assert found.provenance["members"] == ["0", "1", "2"]
    found.save(tmp_path / "pool")
    assert load_predictor(tmp_path / "pool").draws == 3


def test_what_is_no_ensemble_is_refused() -> None:
    one, two = member(0), member(1)
    stacked = build_predictor(
        POTENTIAL, Ensemble(POTENTIAL.init_members(0, 2, torch.float64)), Calibration(), {}
    )
    shifted = replace(POTENTIAL, baseline=replace(POTENTIAL.baseline, scale=0.6))
    wider = replace(POTENTIAL, model=Schnet(cutoff=3.5, features=4, interactions=1, gaussians=5))
    for other, text in (
        (stacked, "b: holds the posterior ensemble; members of an ensemble are"),
        (member(1, shifted), "b: its baseline is not that of a"),
        (member(1, wider), "b: its model is not that of a"),
        (member(0), "b and a hold the same weights"),
        (member(1, dtype=torch.float32), "b: its precision is not that of a"),
    ):
        with pytest.raises(ValueError, match=text):
            combine({"a": one, "b": other})
    with pytest.raises(ValueError, match="at least two members; there is 1"):
        combine({"a": two})
