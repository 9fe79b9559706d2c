"""Runs on a saved potential with a bias, a guard and its shortcut."""

from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from pydantic import Field

from surefoot.calculator import SurefootCalculator
from surefoot.data.convert import to_graph
from surefoot.graph import Graph
from surefoot.md.job import Job
from surefoot.md.run import resume, start
from surefoot.md.settings import Barostat, Bussi, Dynamics, Langevin, Simulation
from surefoot.md.timestep import fastest_periods
from surefoot.md.trajectory import read_trajectory
from surefoot.motion.bias import Bias, NothingToPull
from surefoot.motion.guard import Guard, Watch, look_closer
from surefoot.motion.lennard_jones import LennardJones
from surefoot.motion.observer import AseGuard, LostGround
from surefoot.motion.skin import NeighborLists
from surefoot.motion.surface import Evaluation, PredictorSurface, Surface
from surefoot.motion.systems import join_systems
from surefoot.posteriors.last_layer import LastLayer, out_leaves
from surefoot.posteriors.predictor import Calibration, build_predictor, driver
from surefoot.settings import Settings

PULLS = Bias(of="energy", depth=2.0, width=2.0)


def make_job(folder: Path, atoms: Atoms, surface: Surface, **more) -> Job:
    watch = more.pop("watch", None)
    dynamics = more.pop("dynamics", Dynamics(timestep=0.2, thermostat=Langevin()))
    wide = {"hottest": 1e9, "drift": 1e9, "lost": "allow"}
    settings = Simulation(dynamics=dynamics, **(wide | more))
    return Job(
        structures=[atoms],
        temperatures=[300.0],
        surface=surface,
        settings=settings,
        folder=folder,
        places=["a structure"],
        watch=watch,
    )


@pytest.mark.parametrize("of", ["energy", "ood"])
def test_a_pulled_run_goes_on_to_the_bit(gated, small_structures, tmp_path, of) -> None:
    """With a guard that counts checks, damps and looks at `ood` first."""
    atoms = small_structures["water_cluster"]
    bias = PULLS if of == "energy" else Bias(of="ood", depth=1.0, width=2.0)
    drive = "mean" if of == "energy" else "first"
    surface = PredictorSurface(predictor=gated, bias=bias, drive=drive)
    ood = surface(to_graph(atoms, 4.0), stress=False, uncertainty=False).ood
    assert ood is not None
    guard = Guard(
        uncertainty=1e-6, near_ood=0.9 * float(ood[0]), every=2, consecutive=3, action="damp"
    )
    more = {"steps": 24, "every": 3, "chunk": 2, "uncertainty_every": 0}
    told: list[str] = []
    watch = Watch(guard=guard, warn=told.append)
    job = make_job(tmp_path / "whole", atoms, surface, watch=watch, **more)
    start(job)
    assert told
    left = iter([False] * 13 + [True])
    torn = replace(job, folder=tmp_path / "torn")
    start(replace(torn, asked=lambda: next(left)))
    resume(torn)
    one, other = (read_trajectory(job.folder, 0), read_trajectory(torn.folder, 0))
    assert one["step"].tolist() == list(range(0, 25, 3))
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert np.array_equal(value, other[name], equal_nan=True), name


def test_constant_pressure_feels_the_bias(gated, small_structures, tmp_path) -> None:
    """The stress that moves the volume is that of potential and bias together."""
    atoms = small_structures["skewed_cell"]
    baths = Dynamics(timestep=0.2, thermostat=Bussi(), barostat=Barostat())
    volumes = []
    for name, bias in (("plain", None), ("pulled", PULLS)):
        surface = PredictorSurface(predictor=gated, bias=bias)
        start(make_job(tmp_path / name, atoms, surface, dynamics=baths, steps=3, every=1))
        frames = read_trajectory(tmp_path / name, 0)
        assert ("bias_stress" in frames) == (bias is not None)
        volumes.append(abs(np.linalg.det(frames["cell"])))
    assert volumes[0][0] == volumes[1][0]
    assert (volumes[0][1:] != volumes[1][1:]).all()
    surface = PredictorSurface(predictor=gated, bias=Bias(of="ood", depth=1.0, width=1.0))
    job = make_job(tmp_path / "plain", atoms, surface, dynamics=baths, steps=3)
    with pytest.raises(NothingToPull, match="gives no stress, which constant pressure needs"):
        start(job, over=True)
    assert read_trajectory(tmp_path / "plain", 0)["step"].tolist() == [0, 1, 2, 3]


def test_every_frame_of_a_pulled_run_says_so(gated, small_structures, tmp_path) -> None:
    guard = Guard(uncertainty=1e-9, action="record", every=2)
    surface = PredictorSurface(predictor=gated, bias=PULLS)
    job = make_job(
        tmp_path / "run",
        small_structures["ethanol"],
        surface,
        watch=Watch(guard=guard),
        steps=3,
        format="xyz",
        hottest=1e-3,  # it breaks at the first step
    )
    report = start(job)
    assert report.endings[0].status == "broken"
    names = ["last-good-0000.xyz", "system-0000.xyz", "guard/system-0000-step-000000000.xyz"]
    for name in names:
        frame = ase.io.read(job.folder / name, "0")
        assert isinstance(frame, Atoms)
        assert '"of":"energy"' in frame.info["bias"], name


def test_the_fastest_vibration_feels_the_bias(gated, small_structures) -> None:
    systems, at = join_systems([small_structures["ethanol"]])
    found = []
    for depth in (1e-9, 1e5):
        bias = Bias(of="energy", depth=depth, width=2.0)
        surface = PredictorSurface(predictor=gated, bias=bias)
        lists = NeighborLists(systems, surface.cutoff)
        found.append(float(fastest_periods(systems, at, surface, lists)[0]))
    assert found[1] < 0.5 * found[0]


class Pull(Settings):
    """Towards the origin."""

    spring: float = Field(default=0.1, description="eV/Å²")


class Pulled(LennardJones):
    """A bias of another surface."""

    named = True

    @property
    def bias(self) -> Pull | None:  # type: ignore[override]
        return Pull() if self.named else None

    def __call__(self, graph: Graph, *, stress: bool, uncertainty: bool) -> Evaluation:
        found = super().__call__(graph, stress=stress, uncertainty=uncertainty)
        energy = 0.05 * graph.positions.square().sum()[None]
        return replace(found, bias_energy=energy, bias_forces=-0.1 * graph.positions)


class Silent(Pulled):
    named = False


def test_the_bias_of_any_surface_is_named(tmp_path) -> None:
    pair = Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 3.8]])
    job = make_job(tmp_path / "run", pair, Pulled(), steps=2, every=1, format="xyz")
    assert job.identity["bias"] == {"spring": 0.1}
    start(job)
    frame = ase.io.read(job.folder / "system-0000.xyz", "-1")
    assert isinstance(frame, Atoms)
    assert '"spring":0.1' in frame.info["bias"]
    with pytest.raises(ValueError, match="does not say by what"):
        start(make_job(tmp_path / "silent", pair, Silent(), steps=2))
    assert not (tmp_path / "silent").exists()


def test_a_stress_without_that_of_the_bias_is_refused(tmp_path) -> None:
    box = Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 3.8]], cell=[9, 9, 9], pbc=True)
    baths = Dynamics(timestep=0.2, thermostat=Bussi(), barostat=Barostat())
    with pytest.raises(ValueError, match="a stress and a bias without one"):
        start(make_job(tmp_path / "run", box, Pulled(), dynamics=baths, steps=2))


def test_energies_in_closed_form_are_looked_at_first(gated, small_structures, tmp_path) -> None:
    """One draw of a last layer knows what all know, asked for all or not."""
    point = {name: value[0] for name, value in gated.weights.items()}
    size = sum(point[name].numel() for name in out_leaves(point))
    factor = 0.3 * torch.eye(size, dtype=torch.float64)
    calibration = Calibration(energy=1.3, forces=1.1, source="a test", draws=3)
    layer = LastLayer(point=point, factor=factor, natural=3)
    closed = build_predictor(gated.potential, layer, calibration, {})
    surface = PredictorSurface(predictor=closed, drive="first")
    atoms = small_structures["ethanol"]
    graph = to_graph(atoms, 4.0)
    quick = surface(graph, stress=False, uncertainty=False)
    whole = surface(graph, stress=False, uncertainty=True)
    alone = closed(graph).energy.total
    assert alone is not None
    assert quick.energy_uncertainty is not None
    assert whole.energy_uncertainty is not None
    assert quick.forces_uncertainty_norm is None
    assert torch.equal(quick.energy_uncertainty, whole.energy_uncertainty)
    assert torch.allclose(quick.energy_uncertainty, alone.sqrt(), rtol=1e-6)
    scale = float(quick.energy_uncertainty[0]) / len(atoms) ** 0.5
    for share, near in ((1.01, False), (0.99, True)):
        guard = Guard(uncertainty=1e9, near_energy=share * scale)
        assert look_closer(guard, surface, graph, quick)[1].item() == near
    guard = Guard(uncertainty=1e-9, near_energy=2 * scale, every=1)
    job = make_job(tmp_path / "run", atoms, surface, watch=Watch(guard=guard), steps=2)
    assert not start(job).endings
    calm = AseGuard(Watch(guard=guard), atoms, PredictorSurface(predictor=closed))
    atoms.calc = SurefootCalculator(driver(closed))
    calm()
    tight = Guard(uncertainty=1e-9, near_energy=0.5 * scale)
    with pytest.raises(LostGround):
        AseGuard(Watch(guard=tight), atoms, PredictorSurface(predictor=closed))()
