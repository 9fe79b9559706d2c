"""Images of nudged elastic bands on the potential of the round: what lies between minima."""

from __future__ import annotations

from typing import Literal

from ase import Atoms
from pydantic import Field

from surefoot.active.explore.explorer import Scene, bare, note
from surefoot.barriers.bands import BandSettings, relax_bands
from surefoot.barriers.interpolation import interpolate
from surefoot.barriers.paths import read_paths
from surefoot.data.read import IGNORE, Keys, read_frames, read_state
from surefoot.motion.surface import PredictorSurface
from surefoot.relax.run import Relaxation, relax
from surefoot.settings import Settings


class Bands(Settings):
    """Bands between the ends of the paths of files, as far as they are relaxed.

    Attributes:
        files: paths of hydrogen transfers, such as `surefoot hat` writes; the ends count.
        band: how the images are made and moved; few steps already leave the straight line.
        ends: how the ends are relaxed before; None leaves them as they are.
    """

    name: Literal["bands"] = "bands"
    files: tuple[str, ...] = Field(min_length=1, description="paths; their ends count")
    band: BandSettings = BandSettings(steps=30)
    ends: Relaxation | None = Field(
        default=Relaxation(fmax=0.1, steps=50), description="of the ends, before"
    )

    def explore(self, scene: Scene) -> list[Atoms]:
        """Images of all bands, ends among them, path after path."""
        frames = read_frames(self.files, Keys(energy=IGNORE, forces=IGNORE, stress=IGNORE))
        paths = read_paths(frames)
        surface = PredictorSurface(predictor=scene.predictor)
        ends = [bare(path.images[place]) for path in paths for place in (0, -1)]
        settings = Relaxation(steps=0) if self.ends is None else self.ends
        relaxed = relax(ends, surface, settings)
        first, last = relaxed[::2], relaxed[1::2]
        bands = relax_bands(
            [one.atoms for one in first],
            [
                interpolate(one.atoms, other.atoms, self.band)
                for one, other in zip(first, last, strict=True)
            ],
            [
                (float(one.evaluation.energy), float(other.evaluation.energy))
                for one, other in zip(first, last, strict=True)
            ],
            surface,
            self.band,
        )
        found = []
        for path, band in zip(paths, bands, strict=True):
            charge, spin = read_state(path.images[0].info)
            for positions in band.positions:
                atoms = bare(path.images[0])
                atoms.positions = positions.numpy()
                found.append(note(atoms, charge=charge, spin=spin))
        return found
