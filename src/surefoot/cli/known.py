"""What a potential knows already: frames it has learnt from, files it was calibrated on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from surefoot.data.convert import Sample
    from surefoot.data.read import Frame
    from surefoot.posteriors.predictor import Predictor


def drop_isolated(frames: Sequence[Frame]) -> list[Frame]:
    """The structures; reference atoms, whose energy a potential is given, are left out, and said.

    Raises:
        UserError: if there is nothing else.
    """
    from surefoot.cli.screen import UserError, say
    from surefoot.data.statistics import is_isolated

    kept = [frame for frame in frames if not is_isolated(frame)]
    if frames and not kept:
        raise UserError(f"{frames[0].file}: there are no structures besides isolated atoms.")
    if len(kept) < len(frames):
        say(f"{len(frames) - len(kept)} isolated atoms are left out: a potential is given them")
    return kept


def find_known(
    predictor: Predictor, frames: Sequence[Frame], samples: Sequence[Sample]
) -> np.ndarray:
    """(frames) Which of them a potential has learnt from; in older ones, all of a training file."""
    import numpy as np

    from surefoot.data.load import hash_files
    from surefoot.posteriors.learnt import learnt_files

    if predictor.learnt is not None:
        return np.asarray(predictor.learnt.seen(samples).any(0))
    files = list(dict.fromkeys(str(frame.file) for frame in frames))
    known = learnt_files(predictor.provenance)
    held = dict(zip(files, hash_files(files).values(), strict=True))
    return np.array([held[str(frame.file)] in known for frame in frames], bool)


def warn_of_known(
    name: str, predictor: Predictor, frames: Sequence[Frame], samples: Sequence[Sample]
) -> None:
    """Say which test frames tell nothing of others: learnt from, or calibrated on."""
    from surefoot.cli.screen import complain
    from surefoot.data.load import hash_files

    count = int(find_known(predictor, frames, samples).sum())
    if count:
        complain(
            f"{name} has learnt from {count} of the {len(frames)} frames it is tested on; errors "
            "there are smaller than those on others"
        )
    files = list(dict.fromkeys(str(frame.file) for frame in frames))
    used = set(predictor.provenance.get("calibrated_on", {}).values())
    for file, content in zip(files, hash_files(files).values(), strict=True):
        if content in used:
            complain(
                f"{file} calibrated the error bars of {name}, which hold there by construction"
            )
