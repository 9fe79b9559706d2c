"""Transfers of hydrogen atoms, new ones in each round: what `surefoot hat build` makes."""

from __future__ import annotations

from typing import Literal

import numpy as np
from ase import Atoms
from pydantic import Field, model_validator

from surefoot.active.explore.explorer import Scene, bare
from surefoot.hat.build import BuildSettings, build
from surefoot.settings import Settings


class Transfers(Settings):
    """Configurations of one data set of `surefoot hat build`, further ones in each round.

    The data set is that of the seed of `build` and of the campaign's together: campaigns that
    differ by their seed find other configurations.

    Attributes:
        build: its settings with one split, whose `frames` are those of each round.
    """

    name: Literal["transfers"] = "transfers"
    build: BuildSettings = Field(description="settings of `surefoot hat build`, with one split")

    @model_validator(mode="after")
    def _one_split(self) -> Transfers:
        splits = list(self.build.splits.values())
        if len(splits) != 1 or splits[0].frames < 1 or splits[0].paths:
            raise ValueError(
                "an exploration takes one split with `frames`, how many in each round, and no paths"
            )
        return self

    def explore(self, scene: Scene) -> list[Atoms]:
        """The next frames of the data set of this campaign's seed, which has no end."""
        ((name, split),) = self.build.splits.items()
        begin, end = scene.number * split.frames, (scene.number + 1) * split.frames
        longer = split.model_copy(update={"frames": end})
        seed = int(np.random.SeedSequence([self.build.seed, scene.seed]).generate_state(1)[0])
        built = build(self.build.model_copy(update={"splits": {name: longer}, "seed": seed}))
        return [bare(atoms) for atoms in built.frames[name][begin:]]
