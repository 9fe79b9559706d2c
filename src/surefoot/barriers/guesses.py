"""From a scan to near the saddle point: its highest image, and that with relaxed surroundings.

Ends that are free to relax may leave for somewhere else, or for the other side; a scan is where the
hydrogen goes over. Donor, hydrogen and acceptor stay where they are while all else makes room.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms
from ase.data import covalent_radii
from jaxtyping import Float

from surefoot.barriers.bands import BandSettings
from surefoot.barriers.interpolation import interpolate
from surefoot.barriers.judgement import moved_to
from surefoot.barriers.paths import FEWEST, TransferPath
from surefoot.barriers.together import Together
from surefoot.motion.surface import Surface
from surefoot.motion.systems import find_fixed
from surefoot.relax.run import Relaxation, Relaxed, relax


def find_highest(
    paths: Sequence[TransferPath], surface: Surface, settings: BandSettings
) -> list[Atoms | None]:
    """The highest image of each path, ends not among them; None where no energy is finite.

    Where the path is highest at an end it is the image with the hydrogen most in the middle. Paths
    without an image between their ends are filled up as the first images of a band are.

    Args:
        paths: of two images or more.
        surface: what they are on; all images of all paths are one evaluation.
        settings: of the images to be filled in.
    """
    inside = [_images_between(path, settings) for path in paths]
    images = [
        image
        for path, own in zip(paths, inside, strict=True)
        for image in (path.images[0], *own, path.images[-1])
    ]
    if not images:
        return []
    together = Together(images, surface)
    energies, _ = together.evaluate(together.start)
    curves = energies.split([len(own) + 2 for own in inside])
    return [
        _pick(path, own, curve.numpy())
        for path, own, curve in zip(paths, inside, curves, strict=True)
    ]


def _images_between(path: TransferPath, settings: BandSettings) -> list[Atoms]:
    if len(path.images) >= FEWEST:
        return list(path.images[1:-1])
    first, last = path.images
    filled = interpolate(first, last, settings)
    return [moved_to(first, places.numpy()) for places in filled[1:-1]]


def _pick(
    path: TransferPath, inside: Sequence[Atoms], energies: Float[np.ndarray, " points"]
) -> Atoms | None:
    known = np.where(np.isfinite(energies), energies, -np.inf)
    if not np.isfinite(energies[1:-1]).any():
        return None
    top = int(known.argmax())
    if 0 < top < len(energies) - 1:
        return inside[top - 1]
    off = np.array([abs(_off_middle(path, image)) for image in inside])
    off[~np.isfinite(energies[1:-1])] = np.inf
    return inside[int(off.argmin())]


def _off_middle(path: TransferPath, atoms: Atoms) -> float:
    """By how much more donor–H is stretched than H–acceptor, in units of covalent radii."""
    ends = np.array([path.donor, path.acceptor])
    lengths = atoms.get_distances(path.hydrogen, ends, mic=True)
    first, second = lengths / (covalent_radii[atoms.numbers[ends]] + covalent_radii[1])
    return float(first - second)


def relax_surroundings(
    paths: Sequence[TransferPath],
    images: Sequence[Atoms],
    surface: Surface,
    settings: Relaxation,
) -> list[Relaxed]:
    """Images relaxed with donor, hydrogen and acceptor at rest; constraints stay what they were.

    Args:
        paths: which atoms are at rest.
        images: one of each path.
        surface: what they are on.
        settings: short steps and an early end do.
    """
    held = []
    for path, image in zip(paths, images, strict=True):
        fixed = find_fixed(image)
        fixed[[path.donor, path.hydrogen, path.acceptor]] = True
        atoms = image.copy()
        atoms.set_constraint(FixAtoms(mask=fixed))
        held.append(atoms)
    places = [f"{path.place}, path {path.name}" for path in paths]
    return relax(held, surface, settings, places=places)


def find_direction(path: TransferPath, atoms: Atoms) -> Float[np.ndarray, "atoms 3"]:
    """The hydrogen along the line from donor to acceptor, of norm 1.

    Args:
        path: which atoms they are.
        atoms: where they are.
    """
    direction = np.zeros((len(atoms), 3))
    line = atoms.get_distance(path.donor, path.acceptor, mic=True, vector=True)
    direction[path.hydrogen] = line / np.linalg.norm(line)
    return direction
