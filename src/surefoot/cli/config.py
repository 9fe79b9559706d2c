"""One YAML file, validated before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import field_validator

from surefoot.blocks.conditioning import Conditioning
from surefoot.cli.sections import Choices, load_sections
from surefoot.data.load import DataSettings
from surefoot.heads import HEADS
from surefoot.models import MODELS
from surefoot.posteriors import METHODS
from surefoot.posteriors.ensemble import EnsembleSettings
from surefoot.posteriors.start import StartSettings
from surefoot.posteriors.training import Parts
from surefoot.settings import Settings, any_of, choose_class
from surefoot.train.fit import TrainSettings
from surefoot.train.loss import LossSettings

CHOICES: Choices = {
    "model": (MODELS, "name"),
    "head": (HEADS, "energy"),
    "posterior": (METHODS, "name"),
}


class Config(Settings):
    """Everything that decides a training run."""

    data: DataSettings
    model: any_of(MODELS) = MODELS["schnet"]()  # type: ignore[valid-type]
    head: any_of(HEADS) = HEADS["scalar"]()  # type: ignore[valid-type]
    conditioning: Conditioning = Conditioning()
    loss: LossSettings = LossSettings()
    train: TrainSettings = TrainSettings()
    posterior: any_of(METHODS) = EnsembleSettings()  # type: ignore[valid-type]
    start: StartSettings = StartSettings()

    @field_validator("model", mode="before")
    @classmethod
    def _choose_model(cls, section: Any) -> Any:
        return choose_class(section, *CHOICES["model"], "schnet")

    @field_validator("head", mode="before")
    @classmethod
    def _choose_head(cls, section: Any) -> Any:
        return choose_class(section, *CHOICES["head"], "scalar")

    @field_validator("posterior", mode="before")
    @classmethod
    def _choose_posterior(cls, section: Any) -> Any:
        return choose_class(section, *CHOICES["posterior"], "ensemble")

    @property
    def parts(self) -> Parts:
        """What is trained, and how."""
        return Parts(
            model=self.model,
            head=self.head,
            conditioning=self.conditioning,
            loss=self.loss,
            train=self.train,
            posterior=self.posterior,
            start=self.start,
        )


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read and validate a config; overrides are `section.key=value`, the value in YAML.

    Raises:
        UserError: one sentence per mistake, with file or override, key, and the nearest valid keys.
    """
    advice = f"`surefoot template -o {path}` writes a config"
    return load_sections(Config, path, overrides, advice, CHOICES)
