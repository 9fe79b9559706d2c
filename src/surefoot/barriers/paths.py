"""Transfer paths: images of a structure in which one hydrogen moves, read and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from surefoot.data.read import Frame
from surefoot.label.labeler import check_state

STILL = 1e-3  # Å; what is written with fewer digits than a double moves by less
STRETCH = 1.3  # a bond is shorter than this times the sum of covalent radii
FEWEST = 3  # points of a scan: two ends and something between them


@dataclass(frozen=True, kw_only=True)
class TransferPath:
    """One hydrogen on its way from one atom to another.

    Attributes:
        name: unique in a file.
        images: from the start to the end, without calculators; charge and spin in `info`.
        hydrogen, donor, acceptor: indices of the atom that moves, where it starts, where it ends.
        reference: (points) labels in eV, or None where an image has none.
        method: what made the labels, in words.
        place: of the first image, for messages.
    """

    name: str
    images: tuple[Atoms, ...]
    hydrogen: int
    donor: int
    acceptor: int
    reference: Float[np.ndarray, " points"] | None
    method: str
    place: str

    @property
    def translation(self) -> float:
        """Distance of the hydrogen from its start to its end, Å."""
        ends = [self.images[number].positions[self.hydrogen] for number in (0, -1)]
        return float(np.linalg.norm(ends[1] - ends[0]))

    @property
    def donor_name(self) -> str:
        """What `info` calls the donor, or its atom."""
        return str(self.images[0].info.get("donor", self.label(self.donor)))

    @property
    def acceptor_name(self) -> str:
        """What `info` calls the radical, or its atom."""
        return str(self.images[0].info.get("radical", self.label(self.acceptor)))

    def label(self, atom: int) -> str:
        """Element and index of an atom, such as `C4`."""
        return f"{self.images[0].symbols[atom]}{atom}"


def read_paths(frames: Sequence[Frame]) -> list[TransferPath]:
    """The paths of a file, in the order in which they begin.

    `info` names the path of each frame by `system` and its place in it by `path_point`, from 0; a
    file without `system` is one path, and without `path_point` images stand in their order.
    `moving_h` is the index of the hydrogen. Where `donor_index` and `acceptor_index` are not
    named, they are the closest atoms, other than hydrogen, at the start and at the end.

    Args:
        frames: with charge and spin.
    Raises:
        ValueError: in one sentence with the frame, if frames do not make paths.
    """
    named = ["system" in frame.atoms.info for frame in frames]
    if any(named) and not all(named):
        raise ValueError(
            f"{frames[named.index(False)].place}: info has no 'system' and other frames have; name "
            "the path of every frame."
        )
    groups: dict[str, list[Frame]] = {}
    for frame in frames:
        name = str(frame.atoms.info.get("system", Path(frame.file).name.partition(".")[0]))
        groups.setdefault(name, []).append(frame)
    return [_read_path(name, images) for name, images in groups.items()]


def _read_path(name: str, frames: Sequence[Frame]) -> TransferPath:
    frames = _in_order(name, frames)
    first = frames[0]
    for frame in frames:
        _require_state(frame)
        _require_alike(name, frame, first)
    hydrogen = _read_index(first, "moving_h")
    if first.atoms.numbers[hydrogen] != 1:
        raise ValueError(
            f"{first.place}: moving_h is {hydrogen}, which is {first.atoms.symbols[hydrogen]}; it "
            "must be the index of a hydrogen, counted from 0."
        )
    ends = {"donor_index": first, "acceptor_index": frames[-1]}
    donor, acceptor = (
        _read_index(first, key) if key in first.atoms.info else _nearest(end, hydrogen)
        for key, end in ends.items()
    )
    if donor == acceptor or hydrogen in (donor, acceptor):
        raise ValueError(
            f"{first.place}, path {name}: the hydrogen starts and ends at atom {donor}; donor and "
            "acceptor must be two atoms, so correct the path or name `donor_index` and "
            "`acceptor_index`."
        )
    energies = [frame.energy for frame in frames]
    return TransferPath(
        name=name,
        images=tuple(frame.atoms for frame in frames),
        hydrogen=hydrogen,
        donor=donor,
        acceptor=acceptor,
        reference=None if None in energies else np.array(energies, float),
        method=str(first.atoms.info.get("label_method", "the label in the file")),
        place=first.place,
    )


def _in_order(name: str, frames: Sequence[Frame]) -> list[Frame]:
    """The frames of one path from start to end."""
    numbered = [frame.atoms.info.get("path_point") for frame in frames]
    if all(number is None for number in numbered):
        return list(frames)
    points = [-1 if number is None else int(number) for number in numbered]
    if sorted(points) != list(range(len(frames))):
        raise ValueError(
            f"{frames[0].file}, path {name}: `path_point` has {sorted(points)}; points are missing "
            "or double, and 0, 1, 2 … without gaps are needed."
        )
    return [frames[points.index(number)] for number in range(len(frames))]


def _require_state(frame: Frame) -> None:
    for word, value in (("charge", frame.charge), ("spin", frame.spin)):
        if value is None:
            raise ValueError(
                f"{frame.place}: info has no '{word}'; a transfer has radicals, so state the total "
                "`charge` and the multiplicity `spin` (2S+1)."
            )
    if not frame.atoms.pbc.any():
        try:
            check_state(frame.atoms.numbers, int(frame.charge or 0), int(frame.spin or 0))
        except ValueError as error:
            raise ValueError(f"{frame.place}: {error}.") from error


def _require_alike(name: str, frame: Frame, first: Frame) -> None:
    """Refuse an image of another system than the first one."""
    reason = None
    if not np.array_equal(frame.atoms.numbers, first.atoms.numbers):
        same = sorted(frame.atoms.numbers) == sorted(first.atoms.numbers)
        reason = "its atoms are permuted" if same else "its atoms are others"
    elif (frame.charge, frame.spin) != (first.charge, first.spin):
        reason = "its charge or spin is another one"
    elif not (
        np.array_equal(frame.atoms.pbc, first.atoms.pbc)
        and np.allclose(frame.atoms.cell.array, first.atoms.cell.array)
    ):
        reason = "its cell is another one"
    elif frame.atoms.info.get("moving_h") != first.atoms.info.get("moving_h"):
        reason = "`moving_h` is another atom"
    if reason is not None:
        raise ValueError(
            f"{frame.place}, path {name}: {reason} than in frame {first.index}; all images of a "
            "path must hold the same atoms in the same order, state and cell."
        )


def _read_index(frame: Frame, key: str) -> int:
    value = frame.atoms.info.get(key)
    count = len(frame.atoms)
    if value is None:
        raise ValueError(
            f"{frame.place}: info has no '{key}'; name the hydrogen that moves by its index, "
            "counted from 0."
        )
    try:
        index = int(value)
    except (TypeError, ValueError):
        index = -1
    if not 0 <= index < count:
        raise ValueError(
            f"{frame.place}: {key} is {value}; an index from 0 to {count - 1} is needed."
        )
    return index


def _nearest(frame: Frame, hydrogen: int) -> int:
    lengths = frame.atoms.get_distances(hydrogen, np.arange(len(frame.atoms)), mic=True)
    lengths = np.where(frame.atoms.numbers == 1, np.inf, lengths)
    return int(lengths.argmin())


def require_rigid(path: TransferPath) -> None:
    """Refuse a path on which anything but the hydrogen moves.

    Raises:
        ValueError: if there are fewer than three points, atoms are permuted between images,
            another atom moves by more than 0.001 Å, or the hydrogen does not move.
    """
    where = f"{path.place}, path {path.name}"
    if len(path.images) < FEWEST:
        raise ValueError(
            f"{where}: it has {len(path.images)} points; {FEWEST} or more are needed for a barrier."
        )
    first = path.images[0].positions
    others = np.arange(len(first)) != path.hydrogen
    for number, image in enumerate(path.images):
        moved = np.linalg.norm(image.positions - first, axis=1) * others
        if moved.max() <= STILL:
            continue
        if _is_permuted(path.images[0], image):
            raise ValueError(
                f"{where}: the atoms of image {number} are permuted, atom {moved.argmax()} is "
                "where another one of its element was; write all images in one order."
            )
        raise ValueError(
            f"{where}: atom {moved.argmax()} of image {number} has moved by {moved.max():.3f} Å; "
            f"in a rigid scan only atom {path.hydrogen} (`moving_h`) may. For ends that are to be "
            "relaxed use --saddle."
        )
    if path.translation <= STILL:
        raise ValueError(f"{where}: the hydrogen does not move from the first to the last image.")


def _is_permuted(first: Atoms, second: Atoms) -> bool:
    """Whether all atoms but one are where some atom of their element was."""
    lengths = np.linalg.norm(second.positions[:, None] - first.positions, axis=2)
    lengths[second.numbers[:, None] != first.numbers] = 1e6
    return int((lengths[linear_sum_assignment(lengths)] > STILL).sum()) <= 1


def require_transfer(path: TransferPath) -> None:
    """Refuse ends between which more happens than the transfer of one hydrogen.

    Raises:
        ValueError: if there is one image only, the hydrogen is not closest to donor and acceptor
            at the ends, or another bond is made or broken, as when atoms are permuted.
    """
    where = f"{path.place}, path {path.name}"
    if len(path.images) < 2:
        raise ValueError(f"{where}: it has one image; start and end are needed.")
    for image, atom, side in (
        (path.images[0], path.donor, "first"),
        (path.images[-1], path.acceptor, "last"),
    ):
        held = find_holder(image, path)
        if held != atom:
            raise ValueError(
                f"{where}: in the {side} image the hydrogen is on "
                f"{'no atom' if held is None else path.label(held)} and not on {path.label(atom)}; "
                "give the path from donor to acceptor."
            )
    changed = other_bonds(path.images[0], path.hydrogen) ^ other_bonds(
        path.images[-1], path.hydrogen
    )
    if changed:
        one, other = sorted(sorted(changed)[0])
        raise ValueError(
            f"{where}: the bond {path.label(one)}–{path.label(other)} is in one end and not in the "
            f"other; either the atoms are permuted, or more happens than the transfer of one "
            "hydrogen, which is all that this search knows."
        )


def find_holder(atoms: Atoms, path: TransferPath) -> int | None:
    """Which of donor and acceptor the hydrogen is bound to; None where it is neither.

    It is bound to the one of them to which it is closer, in units of the sum of covalent radii, if
    that is closer than 1.3 of them.
    """
    ends = np.array([path.donor, path.acceptor])
    lengths = atoms.get_distances(path.hydrogen, ends, mic=True)
    radii = covalent_radii[atoms.numbers[ends]] + covalent_radii[1]
    parts = lengths / radii
    return int(ends[parts.argmin()]) if parts.min() < STRETCH else None


def other_bonds(atoms: Atoms, hydrogen: int) -> set[tuple[int, int]]:
    """Pairs of atoms closer than 1.3 times the sum of their covalent radii, without one atom."""
    lengths = atoms.get_all_distances(mic=bool(atoms.pbc.any()))
    radii = covalent_radii[atoms.numbers]
    bound = np.triu(lengths < STRETCH * (radii[:, None] + radii), 1)
    bound[hydrogen] = bound[:, hydrogen] = False
    return {(int(one), int(other)) for one, other in np.argwhere(bound)}
