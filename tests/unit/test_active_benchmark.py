"""benchmarks/active.py: pool and test are apart, and labels that are saved are counted right."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml

from surefoot.cli.learn_config import LearnConfig
from surefoot.data.read import read_frames

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
DATA = os.environ.get("SUREFOOT_DATA")


@pytest.fixture(scope="module")
def active() -> Iterator[dict[str, ModuleType]]:
    """The modules of the benchmark, imported as the script imports them."""
    import importlib

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        names = ("campaigns", "pool", "live", "page")
        yield {name: importlib.import_module(f"active.{name}") for name in names}


def test_blocks_are_apart_and_keep_their_neighbours(active: dict[str, ModuleType]) -> None:
    frames = list(range(103))
    pool, test = active["pool"].split_blocks(frames, 10)
    assert set(pool).isdisjoint(test)
    assert sorted(pool + test) == frames
    assert abs(len(pool) - len(test)) <= 5
    # Neighbours in time are in two halves at the nine borders alone.
    halves = np.isin(frames, pool)
    assert (halves[1:] != halves[:-1]).sum() == 9


@pytest.mark.slow
@pytest.mark.skipif(DATA is None, reason="needs SUREFOOT_DATA")
def test_no_structure_is_on_two_sides(active: dict[str, ModuleType]) -> None:
    """Of what the config makes of the data: pool, test, and all first frames."""
    config = yaml.safe_load((BENCHMARKS / "active" / "pool.yaml").read_text())
    folder = Path(str(DATA)) / "3bpa"
    hot, cold = (
        [
            frame.atoms.get_all_distances().round(4).tobytes()
            for frame in read_frames([folder / f"{name}.xyz.gz"])
        ]
        for name in ("test_600K", "train_300K")
    )
    pool, test = active["pool"].split_blocks(hot, config["blocks"])
    judging = active["pool"].spread(test, config["tests"])
    assert len(set(judging)) == config["tests"]
    assert set(judging).isdisjoint(pool)
    assert set(judging).isdisjoint(cold)


def test_all_runs_have_configs_that_can_be_run(
    active: dict[str, ModuleType], tmp_path: Path
) -> None:
    for scale in ("full", "tiny"):
        setting = active["campaigns"].Setting(scale=scale, work=tmp_path, kept=tmp_path, end=0.0)
        pool, live = setting.config("pool.yaml"), setting.config("live.yaml")
        names = [name for name, _ in active["pool"].list_pool(setting)]
        assert len(names) == len(set(names))
        assert names[0] == "first_ensemble_0"
        for strategy in pool["strategies"].values():
            for posterior in pool["posteriors"].values():
                changes = posterior | strategy
                LearnConfig.model_validate(active["pool"].change(pool["campaign"], changes))
        for strategy in live["strategies"].values():
            LearnConfig.model_validate(active["pool"].change(live["campaign"], strategy))


def test_labels_between_rounds_are_counted_linearly(active: dict[str, ModuleType]) -> None:
    needed = active["page"].labels_needed
    labels, errors = [0, 20, 40, 60], [100.0, 80.0, 85.0, 60.0]
    assert needed(labels, errors, 100.0) == 0.0
    assert needed(labels, errors, 90.0) == pytest.approx(10.0)
    assert needed(labels, errors, 70.0) == pytest.approx(50.0)  # 80 counts at 40, too
    assert needed(labels, errors, 59.0) == float("inf")


def test_the_page_tells_how_many_labels_are_saved(
    active: dict[str, ModuleType], tmp_path: Path
) -> None:
    """A strategy that is twice as fast, in each of three repetitions that begin elsewhere."""
    (tmp_path / "pool").mkdir()
    for strategy, speed in (("random", 0.25), ("bald_ef", 0.5), ("forces_variance", 0.1)):
        for number in range(3):
            rounds = [
                {
                    "labels": labels,
                    "figures": {"forces_rmse": 200.0 + number - speed * labels, "energy_rmse": 1.0},
                    "choice_share": 0.02,
                    "chosen": list(range(20)),
                }
                for labels in range(0, 101, 20)
            ]
            held = {"posterior": "ensemble", "strategy": strategy, "repetition": number}
            file = tmp_path / "pool" / f"ensemble_{strategy}_{number}.json"
            file.write_text(json.dumps(held | {"rounds": rounds}))
    setting = active["campaigns"].Setting(scale="full", work=tmp_path, kept=tmp_path, end=0.0)
    active["page"].write_page(setting)
    page = (tmp_path / "README.md").read_text()
    assert "| bald_ef | 3 | 0.50 [0.50, 0.50] |" in page
    assert "| forces_variance | 3 | > 1 [> 1, > 1] |" in page
    assert "-25.0 [-25.0, -25.0]" in page
    assert "| bald_ef | 100% (0%) |" in page
