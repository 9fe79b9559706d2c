"""Where labels are calculated: processes of this machine, Dask, or a Slurm cluster through Dask.

Every engine opens a `concurrent.futures.Executor`; nothing else of the package knows which it is.
"""

from __future__ import annotations

import importlib.util
import math
import shutil
import time
from collections.abc import Collection, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, InvalidStateError
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Timer
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import Field, model_validator

from surefoot.active.jobs import QUEUE, SUBMIT, Patience, watch
from surefoot.label.processes import THREAD_VARIABLES
from surefoot.label.run import Conduct
from surefoot.label.workers import count_cores, worker_pool
from surefoot.settings import Settings

AGAIN = 2.0  # s between two looks at what workers of Dask calculate


@runtime_checkable
class Engine(Protocol):
    """Something that opens an executor; its fields are its settings."""

    @property
    def name(self) -> str:
        """Its key in `ENGINES`."""
        ...

    def open(self, folder: Path) -> Any:
        """A context manager that gives an `Executor`.

        Args:
            folder: for what it leaves behind, such as scripts and logs of jobs.
        """
        ...


class Processes(Settings):
    """Processes of this machine, one structure and one thread each.

    Attributes:
        workers: how many; one per core where not set.
    """

    name: Literal["processes"] = "processes"
    workers: int | None = Field(default=None, ge=1, description="one per core where not set")

    @contextmanager
    def open(self, folder: Path) -> Iterator[Executor]:  # noqa: ARG002
        """The processes, which end with this one."""
        with worker_pool(self.workers or count_cores()) as pool:
            yield pool


class Dask(Settings):
    """A Dask cluster that runs already, or one of processes of this machine.

    Attributes:
        scheduler: address of a scheduler, or a file that one wrote; one of its own where not set.
        workers: processes of a cluster of its own; one per core where not set.
        deaths: workers that may die under one structure before it is given up.
    """

    name: Literal["dask"] = "dask"
    scheduler: str | None = Field(
        default=None, description="address such as tcp://host:8786, or a scheduler file"
    )
    workers: int | None = Field(default=None, ge=1, description="of a cluster of its own")
    deaths: int = Field(default=3, ge=0, description="of workers under one structure")

    @model_validator(mode="after")
    def _one_cluster(self) -> Dask:
        if self.scheduler is not None and self.workers is not None:
            raise ValueError(
                "`workers` are those of a cluster of its own; a `scheduler` has its workers already"
            )
        return self

    @contextmanager
    def open(self, folder: Path) -> Iterator[Executor]:
        """The cluster's executor; a cluster of its own ends with it."""
        with _dask_settings(self.deaths):
            from distributed import Client, LocalCluster

            if self.scheduler is None:
                with (
                    LocalCluster(
                        n_workers=self.workers,
                        threads_per_worker=1,
                        processes=True,
                        dashboard_address=":0",
                        local_directory=str(folder),
                    ) as cluster,
                    Client(cluster) as client,
                ):
                    yield _DaskExecutor(client)
                return
            file = self.scheduler.endswith(".json")
            with (
                Client(scheduler_file=self.scheduler) if file else Client(self.scheduler)
            ) as client:
                yield _DaskExecutor(client)


class Slurm(Settings):
    """Jobs of a Slurm cluster, each with workers of Dask, which come and go as there is work.

    Attributes:
        jobs: at most.
        cores: of each job; one structure each.
        memory: of each job, such as 16GB.
        walltime: of each job, hh:mm:ss.
        queue: the partition; that of the cluster where not set.
        account: who pays; the user's own where not set.
        directives: further lines of `#SBATCH`, without that word.
        prologue: lines of the job script before the work begins, such as `module load …`.
        start: seconds without a worker, while no job waits for its turn, before it is given up.
        deaths: workers that may die under one structure before it is given up.
    """

    name: Literal["slurm"] = "slurm"
    jobs: int = Field(ge=1, description="at most")
    cores: int = Field(ge=1, description="of each job; each core labels one structure")
    memory: str = Field(description="of each job, such as 16GB")
    walltime: str = Field(default="01:00:00", description="of each job, hh:mm:ss")
    queue: str | None = Field(default=None, description="the partition")
    account: str | None = Field(default=None, description="who pays")
    directives: tuple[str, ...] = Field(default=(), description="further #SBATCH lines")
    prologue: tuple[str, ...] = Field(default=(), description="lines of the script, module load …")
    interface: str | None = Field(default=None, description="network of the nodes, such as ib0")
    start: float = Field(
        default=300.0, gt=0, description="seconds without a worker while no job is pending"
    )
    deaths: int = Field(default=3, ge=0, description="of workers under one structure")

    @contextmanager
    def open(self, folder: Path) -> Iterator[Executor]:
        """An executor of jobs that are submitted when there is work, and end with it.

        Its calls raise ChildProcessError where no job brings a worker.
        """
        with _dask_settings(self.deaths):
            from dask_jobqueue import SLURMCluster
            from distributed import Client

            with (
                SLURMCluster(
                    cores=self.cores,
                    processes=self.cores,
                    memory=self.memory,
                    walltime=self.walltime,
                    queue=self.queue,
                    account=self.account,
                    interface=self.interface,
                    job_extra_directives=list(self.directives),
                    job_script_prologue=list(self.prologue),
                    local_directory=str(folder),
                    log_directory=str(folder),
                    scheduler_options={"dashboard_address": None},
                ) as cluster,
                Client(cluster) as client,
                self._watched(cluster, _DaskExecutor(client), folder) as executor,
            ):
                yield executor

    @contextmanager
    def _watched(self, cluster: Any, executor: _DaskExecutor, folder: Path) -> Iterator[Executor]:
        """The executor, whose calls fail where no job brings a worker."""
        cluster.adapt(minimum_jobs=1, maximum_jobs=self.jobs)

        def list_jobs() -> set[str]:
            return {str(job.job_id) for job in cluster.workers.values() if job.job_id}

        with watch(
            Patience(self.start),
            lambda: not executor.waits or bool(cluster.scheduler_info["workers"]),
            list_jobs,
            lambda: executor.fail(ChildProcessError(self._complain(list_jobs(), folder))),
        ):
            yield executor

    def _complain(self, jobs: Collection[str], folder: Path) -> str:
        return (
            f"no worker has come from Slurm for {self.start:g} s, and no job is pending "
            f"(submitted: {', '.join(sorted(jobs)) or 'none'}): jobs end at their start, or their "
            f"nodes do not reach this one. Their output is in {folder}; look there, mend "
            "`prologue`, `account`, `queue` or `interface`, and give the same command, or raise "
            "`start` where they begin more slowly."
        )


class _DaskFuture(Future[Any]):
    """A call of a Dask client; what a worker has begun can not be cancelled, and is waited for."""

    def __init__(self, executor: _DaskExecutor, task: Any) -> None:
        super().__init__()
        self._executor, self._task = executor, task
        task.add_done_callback(self._hand_on)

    def cancel(self) -> bool:
        if self.done() or self._executor.has_begun(self._task.key) or not super().cancel():
            return self.cancelled()
        self._task.cancel()
        return True

    def _hand_on(self, task: Any) -> None:
        if task.status in ("lost", "pending") and not self.done():
            # Its worker died with the answer, and another one calculates it again.
            again = Timer(AGAIN / 4, self._wait_again, (task,))
            again.daemon = True
            again.start()
            return
        self._executor.forget(self)
        if self.done() or not self.set_running_or_notify_cancel():
            return
        try:
            self.set_result(self._fetch(task))
        except Exception as error:  # noqa: BLE001  whatever the call raised is its answer
            self.set_exception(error)

    def _wait_again(self, task: Any) -> None:
        try:
            task.add_done_callback(self._hand_on)
        except Exception as error:  # noqa: BLE001  the client is closed, or its loop is gone
            self._executor.forget(self)
            with suppress(InvalidStateError):
                self.set_exception(BrokenExecutor(f"the client of Dask is closed: {error}"))

    def _fetch(self, task: Any) -> Any:
        from distributed import KilledWorker

        try:
            return task.result()
        except KilledWorker as error:
            raise BrokenExecutor(str(error)) from error
        except CancelledError as error:
            raise BrokenExecutor("the scheduler of Dask has dropped this call") from error


class _DaskExecutor(Executor):
    """The executor of a Dask client; workers that die too often under a call break it.

    That of Dask itself drops what runs when it is cancelled: a finished label would be lost.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._begun: set[Any] = set()
        self._open: set[_DaskFuture] = set()
        self._looked = -math.inf

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = _DaskFuture(self, self._client.submit(function, *args, **kwargs, pure=False))
        self._open.add(future)
        if future.done():
            self.forget(future)
        return future

    @property
    def waits(self) -> bool:
        """Whether a call has no answer yet."""
        return bool(self._open)

    def forget(self, future: _DaskFuture) -> None:
        """A call that has its answer."""
        self._open.discard(future)

    def fail(self, error: Exception) -> None:
        """Answer all calls that have no answer with an error."""
        for future in list(self._open):
            with suppress(InvalidStateError):
                future.set_exception(error)
            self.forget(future)

    def has_begun(self, key: Any) -> bool:
        """Whether a worker calculates this now, as far as was known a moment ago."""
        if time.monotonic() - self._looked > AGAIN:
            found = self._client.run(_list_begun, on_error="ignore")
            self._begun = {one for keys in found.values() for one in keys}
            self._looked = time.monotonic()
        return key in self._begun


def _list_begun(dask_worker: Any) -> list[Any]:
    return [task.key for task in dask_worker.state.executing]


@contextmanager
def _dask_settings(deaths: int) -> Iterator[None]:
    """Settings of Dask for this engine, and one thread inside each calculation."""
    from dask import config

    one_thread = dict.fromkeys(THREAD_VARIABLES, "1")
    with config.set(
        {
            "distributed.scheduler.allowed-failures": deaths,
            "distributed.nanny.pre-spawn-environ": one_thread,
            "distributed.worker.daemon": False,
        }
    ):
        yield


ENGINES: dict[str, type[Settings]] = {"processes": Processes, "dask": Dask, "slurm": Slurm}
"""Engines by name; each is an `Engine` whose fields are its settings."""


def require_engine(engine: Engine, conduct: Conduct) -> None:
    """Refuse, before anything is trained, an engine that can not calculate.

    Raises:
        ValueError: if a package or a program is missing, or a time limit is set where there can be
            none.
    """
    if not isinstance(engine, Dask | Slurm):
        return
    needed = ("distributed",) if isinstance(engine, Dask) else ("distributed", "dask_jobqueue")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"engine: {{name: {engine.name}}} needs {missing[0]}; install it with `pip install "
            "'surefoot[cluster]'`."
        )
    absent = [name for name in (SUBMIT, QUEUE) if shutil.which(name) is None]
    if isinstance(engine, Slurm) and absent:
        raise ValueError(
            f"engine: {{name: slurm}} submits jobs and there is no `{absent[0]}` here; start this "
            "on a node from which jobs can be submitted."
        )
    if conduct.timeout is not None:
        raise ValueError(
            f"conduct: {{timeout: {conduct.timeout:g}}} needs engine: {{name: processes}}, since "
            f"threads of workers of {engine.name} can not be stopped; leave it out."
        )
