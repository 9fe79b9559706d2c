"""Checkpoints of fairchem-core: what is read, and what is refused with a sentence.

That numbers are those of the original stands in `science/test_scn_parity.py`.
"""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from surefoot.data.convert import to_graph
from surefoot.deploy.records import UnreadableFile
from surefoot.deploy.scn import PUBLISHED, build_scn, published_scn, read_scn, their_shapes

OPTIONS: dict[str, Any] = {
    "num_interactions": 1,
    "lmax": 2,
    "mmax": 0,
    "num_resolutions": 1,
    "sphere_channels": 3,
    "sphere_channels_reduce": 3,
    "hidden_channels": 4,
    "num_basis_functions": 5,
    "distance_resolution": 0.5,
    "cutoff": 4.0,
    "max_num_elements": 10,
    "num_sphere_samples": 16,
    "use_grid": False,
}
SHAPES = {
    "sphere_embedding.weight": (10, 3),
    **{f"{kind}_fc{n}.weight": (3, 3) for kind in ("energy", "force") for n in (1, 2)},
    **{f"{kind}_fc3.weight": (1, 3) for kind in ("energy", "force")},
    **{f"edge_blocks.0.dist_block.{end}_embedding.weight": (10, 5) for end in ("source", "target")},
    "edge_blocks.0.dist_block.fc1_dist.weight": (5, 8),
    "edge_blocks.0.dist_block.fc1_edge_attr.weight": (5, 5),
    "edge_blocks.0.message_blocks.0.fc1_dist.weight": (4, 5),
    "edge_blocks.0.message_blocks.0.fc1_edge_proj.weight": (4, 18),
    "edge_blocks.0.message_blocks.0.fc1_edge.weight": (4, 4),
    "edge_blocks.0.message_blocks.0.fc2_edge.weight": (9, 4),
}


@pytest.fixture
def state(generator) -> dict[str, Tensor]:
    found = {}
    for name, shape in SHAPES.items():
        found[name] = torch.randn(shape, generator=generator)
        if "embedding" not in name:
            bias = torch.randn(shape[:1], generator=generator)
            found[name.replace("weight", "bias")] = bias
    return found


@pytest.fixture
def save(state, tmp_path):
    """Writes a checkpoint with some entries changed, and gives its path."""

    def write(**changes: Any) -> Path:
        buffers = {"distance_expansion.offset": torch.linspace(0, 4, 8)}
        content = {
            "state_dict": OrderedDict(
                {f"module.module.{n}": v for n, v in (state | buffers).items()}
            ),
            "config": {"model": {"name": "scn", "otf_graph": True, **OPTIONS}, "amp": False},
            "normalizers": {
                "energy": OrderedDict(mean=torch.tensor(-0.75), rmsd=torch.tensor(2.5)),
                "forces": OrderedDict(mean=torch.tensor(0.0), rmsd=torch.tensor(5.0)),
            },
            "elementrefs": {},
        } | changes
        path = tmp_path / "checkpoint.pt"
        torch.save({name: value for name, value in content.items() if value is not None}, path)
        return path

    return write


def test_a_checkpoint(save, state, small_structures) -> None:
    """Shift and scales of the labels come back."""
    predictor = read_scn(save(), elements=(1, 6, 8))
    graph = to_graph(small_structures["ethanol"], 4.0)
    plain, found = build_scn(state, OPTIONS)(graph), predictor(graph)
    torch.testing.assert_close(found.energy.mean, 2.5 * plain.energy.mean - 0.75)
    assert found.forces is not None
    assert plain.forces is not None
    torch.testing.assert_close(found.forces.mean, 5.0 * plain.forces.mean)


def test_an_older_checkpoint(save, small_structures) -> None:
    """Options beside the name of the model, and other names of the normalisers."""
    older = save(
        config={"model": "scn", "model_attributes": OPTIONS},
        normalizers={
            "target": {"mean": torch.tensor(-0.75), "std": torch.tensor(2.5)},
            "grad_target": {"mean": torch.tensor(0), "std": torch.tensor(5.0)},
        },
        elementrefs=None,
    )
    graph = to_graph(small_structures["ethanol"], 4.0)
    found = read_scn(older)(graph)
    newer = read_scn(save())(graph)
    assert torch.equal(found.energy.mean, newer.energy.mean)


def test_averages_go_before_weights(save, state, small_structures) -> None:
    """A checkpoint of a running training holds both; the package predicts with the averages."""
    other = {name: value + 0.1 for name, value in state.items()}
    ema = {"decay": 0.999, "num_updates": 7, "shadow_params": list(other.values())}
    path = save(ema=ema | {"collected_params": []})
    graph = to_graph(small_structures["ethanol"], 4.0)
    found, expected = read_scn(path)(graph), build_scn(other, OPTIONS)(graph)
    torch.testing.assert_close(found.energy.mean, 2.5 * expected.energy.mean - 0.75)


@pytest.mark.parametrize("wrong", [{"shadow_params": []}, {}, {"shadow_params": [1.0] * 26}, 3])
def test_averages_of_other_weights_are_refused(save, wrong) -> None:
    with pytest.raises(UnreadableFile, match="averages \\(ema\\) are not those of its weights"):
        read_scn(save(ema=wrong))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": None}, "holds no state_dict beside a config"),
        ({"config": ["scn"]}, "its config is a list, and no dict"),
        ({"normalizers": [1]}, "its normalizers are a list"),
        ({"normalizers": {"energy": [1]}}, "energy has no single mean and rmsd"),
        ({"normalizers": {"energy": {"mean": 1.0, "rmsd": 0.0}}}, "an rmsd above zero"),
        ({"normalizers": {"energy": {"mean": torch.nan, "std": 1.0}}}, "the mean nan"),
        ({"config": {"model": {"name": "escn"}}}, "a checkpoint of the model 'escn'"),
        ({"config": {"model": {"name": "scn", "lmex": 4}}}, "no option lmex; there are basis"),
        ({"elementrefs": {"energy": {"x": torch.ones(3)}}}, "element references"),
        ({"normalizers": {"forces": {"mean": 1.0, "rmsd": 1.0}}}, "forces are shifted by 1"),
        ({"normalizers": {"energy": {"mean": 1.0}}}, "energy has no single mean and rmsd"),
        ({"state_dict": {"w": 3}}, "state_dict is no dict of tensors"),
    ],
    ids=[
        *("no config", "a list as config", "a list", "another list", "no unit", "no mean"),
        *("another model", "unknown option", "references", "shifted forces"),
        *("half a normaliser", "no tensors"),
    ],
)
def test_other_checkpoints_are_refused(save, changes, message) -> None:
    path = save(**changes)
    with pytest.raises(UnreadableFile, match=message) as error:
        read_scn(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distance_function": "bessel"}, "no distance_function 'bessel'; there are gaussian, sig"),
        ({"distance_function": "silu"}, "distance_expansion.fc1.bias are missing"),
        ({"mmax": 2}, "mmax is 2; the original class runs with 0 and 1"),
        ({"mmax": [1]}, "mmax is a list"),
        ({"lmax": 12}, "lmax is 12; a whole number from 0 to 11"),
        ({"lmax": 11, "num_resolutions": 3}, "num_resolutions is 3"),
        ({"max_num_elements": "x"}, "max_num_elements is 'x'; a whole number from 2 to 200"),
        ({"max_num_elements": 10**9}, "max_num_elements is 1000000000"),
        ({"num_sphere_samples": 10**9}, "num_sphere_samples is"),
        ({"num_interactions": 10**7}, "num_interactions is"),
        ({"hidden_channels": 10**7}, "hidden_channels is"),
        ({"hidden_channels": True}, "hidden_channels is True"),
        ({"distance_resolution": 0}, "distance_resolution is 0; a number from 0.0001"),
        ({"distance_resolution": 3.0}, "two radial basis functions"),
        ({"cutoff": float("nan")}, "cutoff is nan"),
        ({"use_grid": "no"}, "use_grid is 'no'; give true or false"),
        ({"use_pbc": False}, "use_pbc is False, which means other edges; True is built"),
        ({"otf_graph": False}, "otf_graph is False, which means other edges"),
        ({"enforce_max_neighbors_strictly": False}, "strictly is False, which means other edges"),
        ({"distance_function": ["silu"]}, "no distance_function a list"),
        # What is within the limits and more than the file holds is compared, not made.
        ({"hidden_channels": 65_536, "num_basis_functions": 65_536, "lmax": 11}, "have shape"),
        ({"lmax": 3}, "fc1_edge_proj.weight have shape"),
        ({"num_interactions": 2}, "edge_blocks.1.* are missing"),
        ({"use_grid": True}, "fc1_sphere.* are missing"),
        ({"regress_forces": False}, "force_fc1.bias belong to nothing"),
    ],
    ids=str,
)
def test_other_options_are_refused(state, changes, message) -> None:
    with pytest.raises(UnreadableFile, match=message):
        build_scn(state, OPTIONS | changes)


@pytest.mark.parametrize("elements", [(), (6, 1), (0, 1), (1, 10), (1, 1)], ids=str)
def test_elements_that_the_tables_do_not_have(state, elements) -> None:
    with pytest.raises(UnreadableFile, match="ascending, from 1 to 9"):
        build_scn(state, OPTIONS, elements=elements)


@pytest.mark.parametrize(
    "changes", [{}, {"distance_function": "silu"}, {"use_grid": True}], ids=str
)
def test_shapes_of_the_weights(changes) -> None:
    """Weights of these shapes are read; of the first options they are those above."""
    shapes = their_shapes(OPTIONS | changes)
    build_scn({name: torch.ones(shape) for name, shape in shapes.items()}, OPTIONS | changes)
    if not changes:
        assert {n: s for n, s in shapes.items() if n.endswith(".weight")} == SHAPES
    assert ("distance_expansion.fc1.weight" in shapes) == ("silu" in changes.values())


def test_published_configurations() -> None:
    models = {name: published_scn(options)[0] for name, options in PUBLISHED.items()}
    assert [m.layers for m in models.values()] == [12, 12, 16]
    assert [m.layouts[0].copies for m in models.values()] == [1, 4, 4]
    assert [m.bands for m in models.values()] == [1, 2, 2]
    for model in models.values():
        assert (model.cutoff, model.limit, model.gaussians, model.width) == (8.0, 40, 400, 2.0)
        assert [layout.rows for layout in model.layouts] == [19, 13]
