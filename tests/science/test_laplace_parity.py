"""The last layer's covariance and marginal likelihood are those of laplace-torch."""

from pathlib import Path

import numpy as np
import pytest
import torch

from surefoot.posteriors.evidence import Rows, log_evidence, sum_rows
from surefoot.posteriors.laplace import invert

ORACLE = np.load(Path(__file__).parent / "oracles" / "laplace.npz")


@pytest.mark.parametrize("case", ORACLE["cases"].tolist())
def test_variances_and_evidence_of_laplace_torch(case: str) -> None:
    held = {
        key.partition("/")[2]: torch.as_tensor(ORACLE[key])
        for key in ORACLE.files
        if key.startswith(f"{case}/")
    }
    features, theta = held["features"], held["theta"]
    rows = {
        "energy": Rows(
            products=features.T @ features,
            squares=float((features @ theta - held["labels"]).square().sum()),
            count=len(features),
        )
    }
    noise = {"energy": held["noise"] ** 2}
    precision = sum_rows(rows, noise) + held["prior"] * torch.eye(len(theta)).double()
    factor = invert(precision)
    found = (held["new"] @ factor).square().sum(1)
    torch.testing.assert_close(found, held["variances"], rtol=1e-6, atol=0)
    evidence = log_evidence(rows, float(theta.square().sum()), noise, held["prior"])
    assert float(evidence) == pytest.approx(float(held["evidence"]), rel=1e-6)
