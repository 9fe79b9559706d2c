"""Two processes that share batches are one process that does not; run as a program, one of them."""

import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from surefoot.blocks.dense import Weights, cast
from surefoot.blocks.reference import Baseline
from surefoot.data.batches import BatchLimits, join
from surefoot.data.convert import Sample
from surefoot.heads.scalar import Scalar
from surefoot.models.mace import Mace
from surefoot.models.schnet import Schnet
from surefoot.potential import Potential
from surefoot.train.distributed import (
    ALONE,
    Team,
    any_of,
    batch_gradients,
    open_team,
    read_team,
    require_graphs,
    require_same_state,
    share_out,
    take_part,
    together,
)
from surefoot.train.fit import Roles, Task, TrainSettings, fit
from surefoot.train.loss import LossSettings
from surefoot.train.schedule import ScheduleSettings
from surefoot.train.state import fresh_state, restore_state
from surefoot.train.step import loss_gradients, shared_gradients

BASELINE = Baseline(elements=(1, 6, 8), energies=(-1.0, -2.0, -3.0), scale=0.7, neighbors=9.0)
POTENTIALS = {
    "schnet": Potential(
        model=Schnet(cutoff=4.0, features=6, interactions=2, gaussians=5),
        head=Scalar(),
        baseline=BASELINE,
    ),
    "mace": Potential(
        model=Mace(cutoff=4.0, irreps="4x0e + 4x1o", max_ell=2, correlation=2, radial=(8,)),
        head=Scalar(layers="last"),
        baseline=BASELINE,
    ),
}
LOSS = LossSettings(energy=1.0, forces=2.0, stress=0.5, forces_rule="norm")
STOP_AT = 5  # of the questions whether to stop; process 1 says yes then


@dataclass(frozen=True, kw_only=True)
class Case:
    """A batch whose gradients are wanted."""

    potential: Potential
    weights: Weights
    samples: Sequence[Sample]
    indices: np.ndarray
    importance: torch.Tensor
    workers: int = 1

    def gradients(self, team: Team = ALONE) -> tuple[Weights, Weights]:
        """Terms and gradients."""
        with ThreadPoolExecutor(self.workers) as pool:
            step = loss_gradients
            if self.workers > 1:
                step = partial(shared_gradients, loss_gradients, pool, self.workers)
            part = take_part(team, self.samples, self.indices, self.importance)
            return batch_gradients(
                team, step, self.potential, LOSS, self.weights, part, self.importance
            )


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training from given weights."""

    task: Task
    weights: Weights

    def trained(
        self, team: Team = ALONE, stop: Callable[[], bool] = lambda: False, **begin
    ) -> dict:
        """Where it ends; from a state that an earlier one ended in, or from the beginning."""
        moments = self.task.mover.fresh(self.weights)
        state = restore_state(**begin) if begin else fresh_state(self.weights, moments=moments)
        fit(self.task, state, stop=stop, team=team)
        return {"tree": state.tree(), "header": state.header()}


def work(folder: Path) -> None:
    """What each of the two processes does: everything in one go, for torch is slow to begin."""
    torch.set_num_threads(1)
    jobs = pickle.loads((folder / "jobs").read_bytes())  # noqa: S301 - ours
    with open_team() as team:
        found: dict[str, Any] = {}
        found |= {name: Case(**fields).gradients(team) for name, fields in jobs["cases"].items()}
        for name, fields in jobs["runs"].items():
            run = Run(**fields)
            asked = 0

            def stop() -> bool:
                nonlocal asked
                asked += 1
                return any_of(team, team.rank == 1 and asked == STOP_AT)

            cut = run.trained(team, stop)
            found |= {f"{name} whole": run.trained(team), f"{name} cut": cut}
            found[f"{name} resumed"] = run.trained(team, **cut)
        state = fresh_state(jobs["cases"]["schnet"]["weights"], moments={})
        require_same_state(team, state)
        name = next(iter(state.averages))
        state.averages[name] = state.averages[name] + 1e-16 * team.rank
        found["parted"] = sentence_of(lambda: require_same_state(team, state))
        found["one fails"] = sentence_of(lambda: together(team, partial(fail, team.rank == 1)))
        found["nobody fails"] = together(team, lambda: f"process {team.rank}")
        found["few graphs"] = sentence_of(lambda: require_graphs(team, BatchLimits(graphs=1)))
    (folder / f"found {team.rank}").write_bytes(pickle.dumps(found))


def fail(wanted: bool) -> None:
    if wanted:
        raise ValueError("the file é.xyz is not there.")


def sentence_of(refused: Callable[[], object]) -> str:
    try:
        refused()
    except ValueError as error:
        return str(error)
    return "nothing was refused"


def vary(samples: list[Sample]) -> list[Sample]:
    """Labels of all kinds missing somewhere, fixed atoms, weights: no two parts are alike."""
    varied = []
    for index, sample in enumerate(samples):
        targets = sample.targets
        fixed = torch.zeros_like(targets.fixed)
        fixed[: index % 3] = True
        varied.append(
            replace(
                sample,
                targets=replace(
                    targets,
                    has_energy=torch.tensor([index % 4 != 1]),
                    has_forces=torch.tensor([index % 5 != 2]),
                    weight=torch.tensor([0.5 + 0.3 * index], dtype=torch.float64),
                    fixed=fixed,
                ),
            )
        )
    return varied


def make_cases(samples: list[Sample], generator: torch.Generator) -> dict[str, Case]:
    def importance_of(*shape: int) -> torch.Tensor:
        return 0.2 + torch.rand(shape, generator=generator, dtype=torch.float64)

    batch = np.array([4, 0, 1, 5, 3])
    cases = {
        name: Case(
            potential=potential,
            weights=potential.init(3, torch.float64),
            samples=samples,
            indices=batch,
            importance=importance_of(5),
        )
        for name, potential in POTENTIALS.items()
    }
    schnet = cases["schnet"]
    cases["mace, float32"] = replace(
        cases["mace"], weights=cast(cases["mace"].weights, torch.float32)
    )
    importance = importance_of(3, 5)
    importance[1, [0, 2, 4]] = 0.0
    importance[2] = 0.0
    importance[2, 3] = 1.0  # a member that learns from one graph: nothing in the other part
    members = replace(
        schnet,
        weights=schnet.potential.init_members(5, 3, torch.float64),
        importance=importance,
    )
    cases["members"] = members
    cases["members on threads"] = replace(members, workers=2)
    cases["one graph"] = replace(schnet, indices=batch[:1], importance=importance_of(1))
    cases["one graph, float32"] = replace(
        members,
        weights=cast(members.weights, torch.float32),
        indices=batch[:1],
        importance=importance_of(3, 1),
    )
    return cases


def make_runs(samples: list[Sample]) -> dict[str, Run]:
    """Five of eight samples are learnt from in batches of two: the last holds one graph."""
    learn = torch.ones(2, 8, dtype=torch.float64)
    learn[:, 5:] = 0
    roles = Roles(learn=learn, judge=learn == 0)
    settings = TrainSettings(
        epochs=3,
        batch=BatchLimits(graphs=2),
        learning_rate=1e-2,
        precision="float64",
        schedule=ScheduleSettings(name="plateau", warmup_steps=2, patience=1, factor=0.5),
    )
    task = Task(
        potential=POTENTIALS["schnet"], loss=LOSS, settings=settings, samples=samples, roles=roles
    )
    single = replace(
        task,
        potential=POTENTIALS["mace"],
        roles=Roles(learn=learn[0], judge=roles.judge[0]),
        settings=settings.model_copy(update={"schedule": ScheduleSettings(warmup_steps=2)}),
    )
    return {
        "members": Run(task=task, weights=task.potential.init_members(2, 2, torch.float64)),
        "mace": Run(task=single, weights=single.potential.init(2, torch.float64)),
    }


@pytest.fixture(scope="module")
def jobs() -> dict:
    """Made once, from seeds."""
    return {}


@pytest.fixture
def found(jobs, make_samples, generator, tmp_path) -> tuple[dict, dict]:
    """What each of two processes found; they are started once."""
    if jobs:
        return jobs["found"]
    samples = vary(make_samples(names=("ethanol", "skewed_cell", "slab", "water_cluster")))
    jobs |= {"cases": make_cases(samples, generator), "runs": make_runs(samples)}
    fields = {kind: {n: vars(job) for n, job in named.items()} for kind, named in jobs.items()}
    (tmp_path / "jobs").write_bytes(pickle.dumps(fields))
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(tmp_path)],
            env={**os.environ, **address, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=60)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    jobs["found"] = tuple(
        pickle.loads((tmp_path / f"found {rank}").read_bytes())  # noqa: S301 - ours
        for rank in range(2)
    )
    return jobs["found"]


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def deviation(found: Weights, expected: Weights) -> float:
    """Largest difference over all leaves, relative to the largest entry of the tree."""
    assert found.keys() == expected.keys()
    largest = max(float(value.abs().max()) for value in expected.values())
    return max(float((found[n] - expected[n]).abs().max()) for n in expected) / largest


def assert_bits(one: Weights, other: Weights) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


CASES = {
    "schnet": 1e-12,
    "mace": 1e-12,
    "mace, float32": 1e-6,
    "members": 1e-12,
    "members on threads": 1e-12,
    "one graph": 1e-12,
    "one graph, float32": 1e-6,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_the_whole_batch(name, jobs, found) -> None:
    terms, gradients = jobs["cases"][name].gradients()
    for process in found:
        assert deviation(process[name][0], terms) < CASES[name]
        assert deviation(process[name][1], gradients) < CASES[name]
    assert_bits(found[0][name][0], found[1][name][0])
    assert_bits(found[0][name][1], found[1][name][1])
    precision = {value.dtype for value in gradients.values()}
    assert {value.dtype for value in found[0][name][1].values()} == precision


@pytest.mark.slow
@pytest.mark.parametrize("name", ["members", "mace"])
def test_training_is_that_of_one_process(name, jobs, found) -> None:
    alone = jobs["runs"][name].trained()
    shared = found[0][f"{name} whole"]
    assert deviation(shared["tree"], alone["tree"]) < 1e-9
    assert shared["header"]["step"] == alone["header"]["step"] == 9
    for record, expected in zip(
        shared["header"]["history"], alone["header"]["history"], strict=True
    ):
        assert record.keys() == expected.keys()
        for key in expected.keys() - {"seconds"}:
            assert record[key] == pytest.approx(expected[key], rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["members", "mace"])
def test_all_stop_after_the_step_in_which_one_is_interrupted(name, found) -> None:
    """The other goes on to the end of the step; a resumed run has the bits of the whole one."""
    first, second = (process[f"{name} cut"] for process in found)
    # Three batches and one end of epoch make four questions per epoch.
    assert first["header"]["step"] == second["header"]["step"] == STOP_AT - 1
    assert_bits(first["tree"], second["tree"])
    for process in found:
        whole, resumed = process[f"{name} whole"], process[f"{name} resumed"]
        assert_bits(whole["tree"], resumed["tree"])
        assert_bits(whole["tree"], found[0][f"{name} whole"]["tree"])


@pytest.mark.slow
def test_processes_that_part_are_refused(found) -> None:
    for process in found:
        assert "the weights after epoch 0 of process 1 and of process 0 differ" in process["parted"]


@pytest.mark.slow
def test_what_fails_in_one_process_fails_in_all(found) -> None:
    assert found[1]["one fails"] == "the file é.xyz is not there."
    assert found[0]["one fails"] == "process 1 could not begin: the file é.xyz is not there."
    assert [process["nobody fails"] for process in found] == ["process 0", "process 1"]


@pytest.mark.slow
def test_a_batch_needs_a_graph_for_each_process(found) -> None:
    assert "graphs: 1" in found[0]["few graphs"]
    assert "2 processes" in found[0]["few graphs"]


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_parts_hold_every_item_once(parts, rng) -> None:
    costs = rng.integers(1, 1000, size=20).tolist()
    chosen = share_out(costs, parts)
    assert sorted(np.concatenate(chosen).tolist()) == list(range(20))
    assert all((np.diff(part) > 0).all() for part in chosen)
    loads = [sum(costs[position] for position in part) for part in chosen]
    # The last item went to the least loaded part, so no part exceeds another by more than it.
    assert max(loads) - min(loads) <= max(costs)
    assert max(loads) < 1.34 * sum(costs) / parts


def test_no_part_is_empty_where_there_are_enough_items() -> None:
    assert [part.tolist() for part in share_out([1, 1000, 1], 3)] == [[1], [0], [2]]
    assert [len(part) for part in share_out([5, 5], 3)] == [1, 1, 0]


def test_alone_the_batch_is_whole(make_samples) -> None:
    samples = make_samples(names=("ethanol",))
    indices, importance = np.array([1, 0]), torch.ones(2, dtype=torch.float64)
    part = take_part(ALONE, samples, indices, importance)
    assert part is not None
    assert part.counts is None
    assert torch.equal(part.batch.graph.positions, join(samples, indices).graph.positions)
    assert together(ALONE, lambda: 3) == 3


@pytest.mark.parametrize("name", ["schnet", "mace", "members"])
@pytest.mark.parametrize("count", [2, 3, 7])
def test_parts_add_up_to_the_whole(count, name, make_samples, generator) -> None:
    """Also where some of the processes have no part; without any process."""
    samples = vary(make_samples(names=("ethanol", "skewed_cell", "slab", "water_cluster")))
    case = make_cases(samples, generator)[name]
    terms, gradients = case.gradients()
    sums: list[Weights] = [
        {key: torch.zeros_like(value) for key, value in tree.items()} for tree in (terms, gradients)
    ]
    for rank in range(count):
        part = take_part(Team(rank=rank, count=count), samples, case.indices, case.importance)
        assert (part is None) == (rank >= len(case.indices))
        if part is None:
            continue
        batch = part.batch
        found = loss_gradients(
            case.potential, LOSS, case.weights, batch.graph, batch.targets, part.importance,
            counts=part.counts,
        )  # fmt: skip
        for total, tree in zip(sums, found, strict=True):
            for key, value in tree.items():
                total[key] += value
    assert deviation(sums[0], terms) < 1e-12
    assert deviation(sums[1], gradients) < 1e-12


def test_counts_are_those_of_the_whole_batch(make_samples) -> None:
    samples = vary(make_samples(names=("ethanol", "skewed_cell", "slab"), copies=1))
    importance = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    parts = [
        take_part(Team(rank=rank, count=2), samples, np.arange(3), importance) for rank in range(2)
    ]
    # Weights 0.5, 0.8, 1.1; energy is missing in the second, forces in the third, of whose three
    # and eight atoms none and one is fixed; only the second has a stress.
    expected = {"energy": 0.5 + 0.55, "forces": 9 * 0.5 + 2 * 1.6, "stress": 1.6}
    seen = []
    for part in parts:
        assert part is not None
        assert part.counts is not None
        seen += part.batch.samples.tolist()
        for name, count in expected.items():
            assert float(part.counts[name]) == pytest.approx(count)
    assert sorted(seen) == [0, 1, 2]


def test_without_torchrun_a_process_is_alone() -> None:
    assert read_team({}) == ALONE
    assert read_team({"MASTER_ADDR": "node1", "LOCAL_RANK": "0"}) == ALONE


def test_torchrun_says_who_one_is() -> None:
    variables = {"RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "node1", "MASTER_PORT": "29500"}
    assert read_team(variables) == Team(rank=3, count=4)
    assert not read_team(variables).leads


@pytest.mark.parametrize("missing", ["RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"])
def test_incomplete_variables_are_refused(missing) -> None:
    variables = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "node1", "MASTER_PORT": "29500"}
    del variables[missing]
    with pytest.raises(ValueError, match=f"but {missing} is not set; start them with `torchrun"):
        read_team(variables)


@pytest.mark.parametrize(("rank", "count"), [("2", "2"), ("-1", "2"), ("0", "two"), ("0", "0")])
def test_numbers_that_make_no_sense_are_refused(rank, count) -> None:
    variables = {"RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "a", "MASTER_PORT": "1"}
    with pytest.raises(ValueError, match=f"RANK={rank} and WORLD_SIZE={count}"):
        read_team(variables)


@pytest.mark.slow
def test_processes_that_can_not_be_found_are_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("surefoot.train.distributed.MEETING", timedelta(seconds=1))
    port = free_port()  # where nobody listens
    variables = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(ConnectionError, match=f"could not find each other at 127.0.0.1:{port}"),
        open_team(),
    ):
        pass


if __name__ == "__main__":
    work(Path(sys.argv[1]))
