"""The published trainings that `surefoot template --task` writes."""

from pathlib import Path

import pytest
import torch

from surefoot.blocks.couplings import parse_irreps
from surefoot.cli.commented import write_template
from surefoot.cli.config import Config, load_config
from surefoot.cli.tasks import TASKS
from surefoot.models.race import Race

COUNTS = {
    "race_qm9": (5, 1_379_456, 15_728_640),
    "race_psb3": (3, 1_067_712, 7_864_320),
    "race_rmd17": (3, 1_936_256, 20_971_520),
    "race_3bpa": (4, 1_252_352, 15_728_640),
    "race_obn25": (2, 160_448, 430_080),
}
PUBLISHED = [name for name in TASKS if name.startswith("race")]


@pytest.fixture
def config(task: str, tmp_path: Path) -> Config:
    path = tmp_path / "c.yaml"
    path.write_text(write_template(["a.xyz"], task=task))
    return load_config(path)


@pytest.mark.parametrize("task", PUBLISHED)
def test_weights_of_race_as_published(task: str, config: Config) -> None:
    """Stated in `TASKS`; the third number is what the mixing of all products a (x) A takes."""
    species, total, mixing = COUNTS[task]
    model = config.model
    assert isinstance(model, Race)
    weights = model.init(torch.Generator().manual_seed(0), species)
    assert sum(value.numel() for value in weights.values()) == total
    squares = sum(count**2 for count, _ in parse_irreps(model.irreps))
    assert model.interactions * model.channels * squares == mixing
    ours = sum(value.numel() for key, value in weights.items() if ".mix." in key)
    assert ours <= mixing * species / model.channels


@pytest.mark.parametrize("task", PUBLISHED)
def test_trainings_of_race_as_published(config: Config) -> None:
    """The loss is |ΔE|² + λ_F ⟨|ΔF|²⟩ over atoms; here the second mean is over components."""
    train, loss = config.train, config.loss
    assert (train.amsgrad, train.average, train.weight_decay) == (True, 0.99, 0.0)
    schedule = train.schedule
    assert (schedule.name, schedule.factor, schedule.patience) == ("plateau", 0.9, 50)
    assert loss.energy_power == 0.0
    assert loss.forces / loss.energy in (3, 150, 3000, 300)
    assert (config.head.hidden, config.posterior.members) == (32, 1)
