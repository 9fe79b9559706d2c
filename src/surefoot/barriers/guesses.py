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
from jaxtyping import Bool, Float
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from surefoot.barriers.bands import BandSettings
from surefoot.barriers.interpolation import interpolate
from surefoot.barriers.judgement import moved_to
from surefoot.barriers.paths import FEWEST, TransferPath, other_bonds
from surefoot.barriers.together import Together
from surefoot.motion.surface import Surface
from surefoot.motion.systems import find_fixed
from surefoot.relax.run import Relaxation, Relaxed, relax

BRIDGE = 1.25  # times the sum of covalent radii: C–H 1.34 Å, as at many saddle points
CLEARANCE = 1.7  # Å between atoms of two molecules that do not react
SHIFTS = 21  # of the acceptor's molecule that are tried, the longest first


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


def draw_together(path: TransferPath, atoms: Atoms) -> Atoms:
    """An image with the acceptor's molecule so near that the hydrogen bridges both atoms.

    Scans with a long way hold donor and acceptor farther apart than any saddle point has them, and
    leave the hydrogen free in between, where the surface is flat or slopes to either side. The
    molecule is moved along the line from acceptor to donor until both bonds are 1.25 times the sum
    of covalent radii, or as near as 1.7 Å between all other atoms of the two molecules allow.

    Args:
        path: which atoms they are.
        atoms: the image.

    Returns:
        A copy; the image as it is where it is near enough, has no room, is periodic or of one
        molecule, or the acceptor's has atoms that are fixed.
    """
    donor, hydrogen, acceptor = path.donor, path.hydrogen, path.acceptor
    radii = covalent_radii[atoms.numbers[[donor, acceptor]]] + covalent_radii[1]
    line = atoms.positions[acceptor] - atoms.positions[donor]
    length = float(np.linalg.norm(line))
    taking = _molecule_of(path, acceptor)
    stays = atoms.pbc.any() or taking[donor] or find_fixed(atoms)[taking].any()
    if stays or length <= BRIDGE * radii.sum():
        return atoms
    giving = ~taking
    giving[hydrogen] = False
    places = atoms.positions
    share = radii[0] / radii.sum()
    for shift in np.linspace(length - BRIDGE * float(radii.sum()), 0.0, SHIFTS)[:-1]:
        moved = places - shift * line / length * taking[:, None]
        apart = np.linalg.norm(moved[giving][:, None] - moved[taking], axis=2)
        apart[np.flatnonzero(giving) == donor, np.flatnonzero(taking) == acceptor] = np.inf
        if apart.min() >= CLEARANCE:
            moved[hydrogen] = moved[donor] + share * (moved[acceptor] - moved[donor])
            return moved_to(atoms, moved)
    return atoms


def _molecule_of(path: TransferPath, atom: int) -> Bool[np.ndarray, " atoms"]:
    """The atoms of the first image that bonds other than the hydrogen's connect to one."""
    first = path.images[0]
    pairs = np.array(sorted(other_bonds(first, path.hydrogen)), int).reshape(-1, 2)
    ones = np.ones(len(pairs), np.int8)
    graph = csr_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(len(first), len(first)))
    _, label = connected_components(graph, directed=False)
    return label == label[atom]


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
