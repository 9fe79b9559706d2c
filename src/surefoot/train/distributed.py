"""Several processes train one run: each takes a part of every batch, sums make them one again.

The step stays what it is. A process computes the loss terms and gradients of its graphs, divided
by the label counts of the *whole* batch, and the sum over processes is then the loss and the
gradient of the whole batch, whatever labels fell to whom:

    ∇L = Σ_p ∇ Σ_terms w_t · (Σ_{i in part p} weight_i score_i) / (Σ_{i in batch} weight_i)

Optimiser, averages and schedule follow in every process from the same numbers. Sums run over names
in alphabetical order, since a tree from a file has another order and a ring sums each place of its
buffer beginning with another process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from surefoot.blocks.dense import Weights
from surefoot.data.batches import Batch, BatchLimits, join
from surefoot.data.convert import Sample, join_targets
from surefoot.potential import Potential
from surefoot.train.checkpoint import digest
from surefoot.train.loss import LossSettings, label_weights
from surefoot.train.state import State
from surefoot.train.step import Gradients

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun sets and a process needs to find the others."""

MEETING = timedelta(minutes=3)
"""How long to look for the others: torchrun starts all at once, torch would wait half an hour."""

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Team:
    """The processes of a run, as one of them sees it.

    Attributes:
        rank: number of this process; 0 writes files and speaks.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0


ALONE = Team()
"""One process: nothing is shared out and nothing is sent."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one process does of a batch.

    Attributes:
        batch: its graphs and targets.
        importance: (members, graphs of the part) weight in each member's loss.
        counts: what the means of the whole batch are divided by, see `loss_terms`; None where this
            is the whole batch.
    """

    batch: Batch
    importance: Float[Tensor, "*members graphs"]
    counts: Mapping[str, Float[Tensor, "*members"]] | None


@contextmanager
def open_team() -> Iterator[Team]:
    """The processes that torchrun started, by the variables of the environment; else `ALONE`.

    Tensors on the CPU travel by gloo, those on CUDA devices by NCCL.

    Raises:
        ValueError: if some variables are missing or no sensible numbers.
        ConnectionError: if the others can not be reached.
    """
    team = read_team(os.environ)
    if team.count == 1:
        yield team
        return
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        local = int(os.environ.get("LOCAL_RANK", team.rank))
        torch.cuda.set_device(local % torch.cuda.device_count())
    with _lost(
        f"the {team.count} processes of this run could not find each other at "
        f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    ):
        store, rank, count = next(dist.rendezvous("env://", timeout=MEETING))
        store.set_timeout(dist.default_pg_timeout)
        dist.init_process_group(backend, store=store, rank=rank, world_size=count)
    try:
        yield team
    finally:
        dist.destroy_process_group()


def read_team(environment: Mapping[str, str]) -> Team:
    """What the variables of torchrun say, without meeting the others.

    Raises:
        ValueError: if some are missing or no sensible numbers.
    """
    if not {"RANK", "WORLD_SIZE"} & environment.keys():
        return ALONE
    missing = [name for name in VARIABLES if not environment.get(name)]
    if missing:
        raise ValueError(
            f"{', '.join(n for n in VARIABLES if n not in missing)} in the environment "
            f"say that several processes train one run, but {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not set; start them with `torchrun "
            "--nproc-per-node 2 -m surefoot train …`, or unset RANK and WORLD_SIZE."
        )
    numbers = [environment[name] for name in ("RANK", "WORLD_SIZE")]
    if not all(text.isdecimal() for text in numbers) or not int(numbers[0]) < int(numbers[1]):
        raise ValueError(
            f"RANK={numbers[0]} and WORLD_SIZE={numbers[1]} in the environment are no process of "
            "several; RANK counts from 0 and stays below WORLD_SIZE. torchrun sets both."
        )
    return Team(rank=int(numbers[0]), count=int(numbers[1]))


def require_graphs(team: Team, limits: BatchLimits) -> None:
    """Refuse batches of which some process would never get a graph.

    Raises:
        ValueError: if a batch holds fewer graphs than there are processes.
    """
    if limits.graphs < team.count:
        raise ValueError(
            f"train: {{batch: {{graphs: {limits.graphs}}}}} is less than one for each of the "
            f"{team.count} processes that share a batch; raise it, or start fewer processes."
        )


def share_out(costs: Sequence[int], parts: int) -> list[np.ndarray]:
    """Positions of the items of each part: the costliest go first, each to the least loaded.

    Every process finds the same parts. Where there are as many items as parts or more, no part is
    empty, provided that every item costs something.

    Args:
        costs: of the items of a batch.
        parts: how many.
    Returns:
        for each part the positions in ascending order.
    """
    loads = [0] * parts
    chosen: list[list[int]] = [[] for _ in range(parts)]
    for position in np.argsort(-np.asarray(costs), kind="stable").tolist():
        part = loads.index(min(loads))
        loads[part] += costs[position]
        chosen[part].append(position)
    return [np.array(sorted(positions), np.int64) for positions in chosen]


def take_part(
    team: Team,
    samples: Sequence[Sample],
    indices: np.ndarray,
    importance: Float[Tensor, "*members graphs"],
) -> Part | None:
    """What this process does of a batch; None where nothing fell to it.

    Args:
        team: who shares the batch.
        samples: all samples.
        indices: those of the batch.
        importance: (members, graphs of the batch).
    """
    if team.count == 1:
        return Part(batch=join(samples, indices), importance=importance, counts=None)
    chosen = [samples[index] for index in indices]
    # Edges make the time, atoms are there so that nothing is free.
    costs = [sample.edges + sample.atoms for sample in chosen]
    mine = share_out(costs, team.count)[team.rank]
    if len(mine) == 0:
        return None
    sizes = torch.tensor([sample.atoms for sample in chosen])
    graph_index = torch.repeat_interleave(torch.arange(len(chosen)), sizes)
    weights = label_weights(join_targets(chosen), graph_index, importance)
    return Part(
        batch=join(samples, indices[mine]),
        importance=importance[..., torch.as_tensor(mine)],
        counts={name: weight.sum(-1) for name, weight in weights.items()},
    )


def batch_gradients(
    team: Team,
    gradients_of: Gradients,
    potential: Potential,
    settings: LossSettings,
    weights: Weights,
    part: Part | None,
    importance: Float[Tensor, "*members graphs"],
    fixed: Weights | None = None,
) -> tuple[dict[str, Tensor], Weights]:
    """Loss terms and gradients of a whole batch, the same bits in every process.

    Args:
        team: who shares the batch.
        gradients_of: the step.
        potential: as the step takes it.
        settings: as there.
        weights: as there; the same in every process.
        part: what this process does, see `take_part`.
        importance: (members, graphs of the batch).
        fixed: weights that are not learned.
    """
    if part is None:
        names = [name for name in ("energy", "forces", "stress") if getattr(settings, name) > 0]
        nothing = importance.new_zeros(importance.shape[:-1])
        terms = dict.fromkeys((*names, "total"), nothing)
        gradients = {name: torch.zeros_like(value) for name, value in weights.items()}
    else:
        inputs = (weights, part.batch.graph, part.batch.targets, part.importance)
        if part.counts is None:
            return gradients_of(potential, settings, *inputs, fixed=fixed)
        terms, gradients = gradients_of(
            potential, settings, *inputs, counts=part.counts, fixed=fixed
        )
    # Without a part there is no telling in which precision others found their terms.
    terms = {name: term.double() for name, term in terms.items()}
    return add_up(team, terms), add_up(team, gradients)


def add_up(team: Team, tree: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The sum of a tree over all processes, the same bits in each: one message for all leaves.

    Args:
        team: who takes part.
        tree: the same names and shapes in every process, all of one precision.
    Raises:
        ConnectionError: if another process has ended.
    """
    if team.count == 1:
        return dict(tree)
    names = sorted(tree)
    total = torch.cat([tree[name].detach().reshape(-1) for name in names])
    with _lost(
        "the connection to another process of this run broke, most likely because it has ended; "
        "--resume goes on from the last checkpoint"
    ):
        dist.all_reduce(total)
    parts = total.split([tree[name].numel() for name in names])
    sums = {n: part.reshape(tree[n].shape) for n, part in zip(names, parts, strict=True)}
    return {name: sums[name] for name in tree}


def any_of(team: Team, answer: bool) -> bool:
    """Whether any process says yes, so that all stop after the same step."""
    return bool(add_up(team, {"yes": torch.tensor(float(answer))})["yes"] > 0)


def wait_for_all(team: Team) -> None:
    """Go on when every process has come here."""
    any_of(team, False)


def together(team: Team, prepare: Callable[[], Result]) -> Result:
    """What `prepare` returns; if it fails in one process it fails in all, so that none waits.

    Raises:
        ValueError: with the sentence of the first process that failed, in those that did not.
    """
    if team.count == 1:
        return prepare()
    result, failure = None, None
    try:
        result = prepare()
    except Exception as error:  # noqa: BLE001 - raised again below, after the others know
        failure = error
    sentences = _gather(team, "" if failure is None else str(failure) or repr(failure))
    if failure is not None:
        raise failure
    for rank, sentence in enumerate(sentences):
        if sentence:
            raise ValueError(f"process {rank} could not begin: {sentence}")
    return cast("Result", result)


def require_same(team: Team, what: str, fingerprint: str) -> None:
    """Refuse to go on where processes have parted.

    Args:
        team: who compares.
        what: what is compared, for the sentence.
        fingerprint: of this process.
    Raises:
        ValueError: in every process, naming those that differ from the first.
    """
    if team.count == 1:
        return
    found = _gather(team, fingerprint)
    others = [str(rank) for rank, value in enumerate(found) if value != found[0]]
    if others:
        raise ValueError(
            f"{what} of process {', '.join(others)} and of process 0 differ, but all processes "
            "train one run; give them the same files, versions, threads and kind of processor."
        )


def require_same_state(team: Team, state: State) -> None:
    """Refuse to go on where the processes of a run have come to different states.

    Raises:
        ValueError: as `require_same`.
    """
    if team.count > 1:
        require_same(team, f"the weights after epoch {state.epoch}", digest(state.tree()))


def _gather(team: Team, text: str) -> list[str]:
    """The text of each process: rows of a table that is zero elsewhere."""
    content = torch.tensor(list(text.encode()), dtype=torch.int64)
    lengths = torch.zeros(team.count, dtype=torch.int64)
    lengths[team.rank] = len(content)
    lengths = add_up(team, {"lengths": lengths})["lengths"]
    table = torch.zeros((team.count, int(lengths.max())), dtype=torch.int64)
    table[team.rank, : len(content)] = content
    rows = add_up(team, {"table": table})["table"].tolist()
    return [bytes(row[:end]).decode() for row, end in zip(rows, lengths.tolist(), strict=True)]


@contextmanager
def _lost(what: str) -> Iterator[None]:
    """A sentence for what torch raises where a connection breaks."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        raise ConnectionError(f"{what}.") from error
