"""Train an ensemble on a labelled file and save it: what `surefoot train` does, in Python.

Usage: python 01_train.py TRAIN_FILE POTENTIAL [EPOCHS]
"""

import sys
from pathlib import Path

from surefoot.data.check import check_frames
from surefoot.data.findings import Severity
from surefoot.data.load import DataSettings, load_splits
from surefoot.heads import Scalar
from surefoot.models import Schnet
from surefoot.posteriors.ensemble import EnsembleSettings
from surefoot.posteriors.training import Parts, finish, plan_training, start
from surefoot.train.fit import TrainSettings, fit
from surefoot.train.state import State


def show(state: State) -> None:
    record = state.history[-1]
    print(f"epoch {state.epoch}: forces {1000 * record['valid_forces_mae']:.0f} meV/Å on unseen")


def main(train: str, potential: Path, epochs: int) -> None:
    splits = load_splits(DataSettings(train=[train]), seed=0)
    findings = check_frames(splits.by_name())
    for finding in findings:
        print(finding.severity.value, finding.message)
    if any(finding.severity is Severity.ERROR for finding in findings):
        sys.exit("training would be wrong")
    parts = Parts(
        model=Schnet(features=32, interactions=2, activation="silu"),
        head=Scalar(activation="silu"),
        train=TrainSettings(epochs=epochs, learning_rate=3e-3),
        posterior=EnsembleSettings(members=4),
    )
    plan = plan_training(splits, parts)
    state = start(plan)
    fit(plan.task, state, observers=[show])
    predictor, factors = finish(plan, state)
    predictor.save(potential)
    for name, factor in factors.items():
        print(f"σ of {name} × {factor.value:.2f}, from {factor.points} unseen points")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 50)
