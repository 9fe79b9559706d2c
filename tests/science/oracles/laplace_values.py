"""Write laplace.npz: variances and marginal likelihoods of laplace-torch for the parity test.

Its requirements are not ours, so the script runs in an environment of its own:

    python -m venv ENV
    ENV/bin/pip install torch==2.13.0 laplace-torch==0.3 numpy
    ENV/bin/python tests/science/oracles/laplace_values.py [another target]

The model is one hidden layer of tanh and a last linear map with a bias, weights at random; the
posterior is that of the last map, with the whole matrix, for regression with one output. For each
case C the archive holds, in float64 and without units:

    C/features (points, K): what the last map takes in, with a column of ones for the bias
    C/labels (points), C/theta (K): weights of the last map, those of the features first
    C/noise, C/prior: standard deviation of the labels, precision of the prior
    C/new (points, K): features of other points
    C/variances (points): of the output at these, without noise
    C/evidence: logarithm of the marginal likelihood

and for all of them `cases` and the versions.
"""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import numpy as np
import torch
from laplace import Laplace
from torch import Tensor, nn

# Noise and prior would be kept in single precision otherwise.
torch.set_default_dtype(torch.float64)

# Name → points, inputs, hidden width, noise, prior.
CASES = {
    "many": (200, 4, 6, 0.3, 2.0),
    "few": (5, 3, 9, 0.05, 0.1),
    "noisy": (40, 2, 4, 3.0, 1e-3),
}


def make_model(inputs: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, 1)).double()


def features(model: nn.Sequential, x: Tensor) -> Tensor:
    """What the last map takes in, and ones."""
    inner = model[:-1](x).detach()
    return torch.cat([inner, torch.ones(len(x), 1, dtype=torch.float64)], dim=1)


def values(number: int, case: tuple[int, int, int, float, float]) -> dict[str, np.ndarray]:
    """All arrays of one case."""
    points, inputs, hidden, noise, prior = case
    torch.manual_seed(number)
    model = make_model(inputs, hidden)
    x, new = (torch.randn(count, inputs, dtype=torch.float64) for count in (points, 7))
    y = torch.randn(points, 1, dtype=torch.float64)
    fitted = Laplace(
        model,
        "regression",
        subset_of_weights="last_layer",
        hessian_structure="full",
        sigma_noise=noise,
        prior_precision=prior,
    )
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=points)
    fitted.fit(loader)
    _, variances = fitted(new)
    last = model[-1]
    return {
        "features": features(model, x).numpy(),
        "labels": y[:, 0].numpy(),
        "theta": torch.cat([last.weight[0], last.bias]).detach().numpy(),
        "noise": np.array(noise),
        "prior": np.array(prior),
        "new": features(model, new).numpy(),
        "variances": variances.reshape(-1).detach().numpy(),
        "evidence": np.array(float(fitted.log_marginal_likelihood())),
    }


def main(target: Path) -> None:
    held = {
        f"{name}/{key}": value
        for number, (name, case) in enumerate(CASES.items())
        for key, value in values(number, case).items()
    }
    versions = {
        f"{name.replace('-', '_')}_version": np.array(importlib.metadata.version(name))
        for name in ("laplace-torch", "torch")
    }
    np.savez_compressed(target, cases=np.array(list(CASES)), **held, **versions)


if __name__ == "__main__":
    default = Path(__file__).with_name("laplace.npz")
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else default)
