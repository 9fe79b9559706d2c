"""What a training says of each epoch, as event files that TensorBoard shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from surefoot.train.state import State

FOLDER = "tensorboard"
"""Beside the log."""


@contextmanager
def open_events(folder: Path, epoch: int = 0) -> Iterator[Callable[[State], None]]:
    """An observer of `fit` that writes the numbers of `log.csv`: `train/total` and so on.

    Events after the epoch that a run begins from, as a killed one leaves them, are taken back.

    Args:
        folder: made where it is missing; files of earlier parts of the run stay.
        epoch: finished before.
    Raises:
        ModuleNotFoundError: without the extra `tensorboard`.
    """
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder), purge_step=epoch + 1) as writer:

        def write(state: State) -> None:
            for name, value in state.history[-1].items():
                kind, _, rest = name.partition("_")
                if name != "epoch":
                    writer.add_scalar(f"{kind}/{rest}" if rest else name, value, state.epoch)
            writer.flush()

        yield write
