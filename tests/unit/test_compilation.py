"""Trees of tensors, and functions of them as compiled graphs."""

import math
import os
import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import pytest
import torch
from torch import Tensor

from surefoot.blocks.native import open_cache
from surefoot.compilation import (
    AXIS,
    BOUNDS,
    Compiled,
    _disturb,
    _require_close,
    flatten,
    rebuild,
)

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch) -> None:
    monkeypatch.setattr("surefoot.compilation._said", set())


@dataclass(frozen=True, kw_only=True)
class Part:
    """Items with bounds, a second axis that varies, and a word."""

    values: Tensor
    offsets: Tensor = field(metadata={BOUNDS: True})
    index: Tensor = field(metadata={AXIS: 1})
    word: str = "and"


def part(items: int) -> Part:
    return Part(
        values=torch.arange(3.0 * items).reshape(items, 3) + 1,
        offsets=torch.arange(items + 1),
        index=torch.arange(2 * items).reshape(2, items),
    )


def test_a_tree_comes_back() -> None:
    tree = ({"b": torch.ones(2), "a": torch.zeros(3)}, part(4), None, torch.ones(5), 7)
    leaves, spec = flatten(tree)
    assert [leaf.axis for leaf in leaves] == [None, None, 0, 0, 1, -1]
    again = rebuild(spec, [leaf.tensor for leaf in leaves])
    assert again[0].keys() == {"a", "b"}
    assert torch.equal(again[0]["b"], torch.ones(2))
    assert isinstance(again[1], Part)
    assert again[1].word == "and"
    assert torch.equal(again[1].index, tree[1].index)
    assert again[2] is None
    assert again[4] == 7
    hash(spec)


def test_the_order_of_a_dictionary_does_not_matter() -> None:
    one, other = {"a": torch.ones(1), "b": torch.zeros(1)}, {"b": torch.zeros(1)}
    other["a"] = torch.ones(1)
    assert flatten(one)[1] == flatten(other)[1]
    assert [float(leaf.tensor) for leaf in flatten(other)[0]] == [1.0, 0.0]


def slope_of_energy(weights: dict[str, Tensor], items: Part) -> dict[str, Tensor]:
    """A slope inside, as forces are one."""
    x = items.values.detach().requires_grad_()
    with torch.enable_grad():
        energy = (x @ weights["w"]).tanh().sum(0)
        (slope,) = torch.autograd.grad(energy.sum(), x)
    return {"energy": energy.detach(), "slope": slope}


@pytest.mark.slow
def test_one_graph_for_all_sizes_but_one() -> None:
    compiled = Compiled(slope_of_energy)
    weights = {"w": torch.linspace(-1, 1, 6).reshape(3, 2)}
    for items in (4, 3, 17, 2, 1):
        found, expected = compiled(weights, part(items)), slope_of_energy(weights, part(items))
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value)
    assert len(compiled.graphs) == 2  # one item is a constant
    assert not compiled.failed


def test_sizes_beyond_what_the_compiler_takes_for_granted_have_their_own(monkeypatch) -> None:
    from torch._inductor import compile_fx

    original = compile_fx.compile_fx

    def presuming(graph, inputs):
        made = original(graph, inputs)
        (size,) = (n for n in inputs[0].shape if not isinstance(n, int))
        assert bool(size < 10) in (True, False)  # whichever it is is taken for granted
        return made

    monkeypatch.setattr(compile_fx, "compile_fx", presuming)
    compiled = Compiled(lambda x: x.square().sum())
    for count in (5, 20, 7, 30):
        assert float(compiled(torch.ones(count))) == count
    (programs,) = compiled.graphs.values()
    assert [p.serves([torch.ones(9)]) for p in programs] == [True, False]
    assert [p.serves([torch.ones(10)]) for p in programs] == [False, True]


@pytest.mark.usefixtures("tracing")
def test_a_function_that_compares_sizes_has_a_graph_for_each_answer() -> None:
    compiled = Compiled(lambda x: x * 2 if x.shape[0] > 10 else x * 3)
    for count, factor in ((5, 3), (20, 2), (7, 3), (11, 2)):
        assert float(compiled(torch.ones(count)).sum()) == factor * count
    (programs,) = compiled.graphs.values()
    assert len(programs) == 2


def test_calls_at_the_same_time_do_not_mix() -> None:
    compiled = Compiled(lambda x: (x.square() * x.sum()).tanh().cumsum(0))
    inputs = [torch.linspace(-0.1, 0.01 * n, 4000 + n) for n in range(8)]
    alone = [compiled(x) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(compiled, inputs * 20))
    assert all(torch.equal(one, alone[n % 8]) for n, one in enumerate(together))
    assert len(compiled.graphs) == 1


def test_without_items_the_function_itself_answers() -> None:
    compiled = Compiled(slope_of_energy)
    weights = {"w": torch.ones(3, 2)}
    assert compiled(weights, part(0))["slope"].shape == (0, 3)
    assert not compiled.graphs


@pytest.mark.slow
@pytest.mark.parametrize("look", [lambda x: float(x.sum()), lambda x: len(range(x.shape[0]))])
def test_a_function_that_looks_at_values_or_sizes_is_not_compiled(look) -> None:
    """It goes on as it is, and says so once."""

    def function(items: Part) -> Tensor:
        return items.values * look(items.values)

    compiled = Compiled(function)
    with pytest.warns(RuntimeWarning, match="compiling failed"):
        found = compiled(part(4))
    assert torch.equal(found, function(part(4)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(compiled(part(5)), function(part(5)))


WITHOUT = """
import warnings
import torch
from surefoot.compilation import Compiled

function = lambda values: values.cos()
compiled = Compiled(function)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    for items in (4, 1, 5):
        values = torch.arange(1.0 + items)[1:, None] * torch.ones(items, 2)
        assert torch.equal(compiled(values.mT), function(values.mT))
assert len(compiled.broken) == 2 and not compiled.graphs
print([str(one.message) for one in said if "compiling failed" in str(one.message)])
"""


@pytest.mark.slow
def test_without_a_compiler_it_is_said_once(tmp_path) -> None:
    """However many graphs there would be; in a process that never met one."""
    nowhere = {"CXX": str(tmp_path / "g++"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        env=os.environ | nowhere,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count("compiling failed") == 1
    assert "everything is computed as without it, only slower." in done.stdout


LATER = """
import sys
import torch
from pathlib import Path
from surefoot.compilation import Compiled

compiled = Compiled(lambda x: (3.7 * x).sin(), lambda: Path(sys.argv[1]))
compiled(torch.ones(2, 9))
assert not compiled.failed
"""


@pytest.mark.slow
def test_what_the_compiler_made_lies_in_the_folder(tmp_path, monkeypatch) -> None:
    """Another process finds it; and the environment is as before, whatever stood there."""
    elsewhere = str(tmp_path / "elsewhere")  # importing the compiler makes a relative path absolute
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", elsewhere)

    # A function that is met nowhere else in this process.
    compiled = Compiled(lambda x: (3.7 * x).sin(), lambda: tmp_path / "here")
    compiled(torch.ones(2, 4))
    assert not compiled.failed
    made = {file: file.stat().st_mtime_ns for file in (tmp_path / "here").rglob("*.so")}
    assert made
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == elsewhere
    command = [sys.executable, "-c", LATER, str(tmp_path / "here")]
    alike = {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # the code depends on it
    kept = []
    for _ in range(2):  # a fresh process also asks what the processor can do, with code of its own
        subprocess.run(command, check=True, capture_output=True, env=os.environ | alike)
        files = (tmp_path / "here").rglob("*.so")
        kept.append({file: file.stat().st_mtime_ns for file in files})
    assert made.items() <= kept[0].items()
    assert kept[0] == kept[1]


def test_a_folder_that_others_may_write_to_is_not_used(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SUREFOOT_CACHE", str(tmp_path))
    tmp_path.chmod(0o777)
    compiled = Compiled(slope_of_energy, partial(open_cache, "compiled"))
    with pytest.warns(RuntimeWarning, match="other users may write to"):
        compiled({"w": torch.ones(3, 2)}, part(4))


def test_any_layout_in_memory_is_taken() -> None:
    compiled = Compiled(slope_of_energy)
    weights = {"w": torch.linspace(-1, 1, 6).reshape(3, 2)}
    turned = {"w": weights["w"].T.contiguous().T}
    assert not turned["w"].is_contiguous()
    first = compiled(weights, part(4))
    assert torch.equal(compiled(turned, part(4))["slope"], first["slope"])


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_values_that_are_not_finite_are_noticed(wrong) -> None:
    right, nan = torch.tensor([1.0, 2.0]), torch.tensor([math.nan])
    with pytest.raises(RuntimeError, match="not finite"):
        _require_close([torch.tensor([1.0, wrong])], [right], [right])
    _require_close([nan], [nan], [nan])


@pytest.mark.parametrize(
    ("right", "moved", "near", "far"),
    [
        (1e-3, 1e-3 + 2e-9, 1e-3 + 1e-7, 1.09e-3),  # a small stress
        (-17660.0, -17660.0 + 2e-6, -17660.0 + 1e-4, -17658.3),  # mostly references
        (1e-6, 1e-6 + 1e-12, 1e-6 + 1e-10, 9e-5),  # one of many slopes
        (2e-8, -3e-8, -1e-8, 1e-3),  # nothing, by symmetry
        (0.0, 0.0, 0.0, 1e-12),  # nothing at all
    ],
)
def test_an_answer_is_as_near_as_rounding_allows(right, moved, near, far) -> None:
    """Whatever its size: what is allowed follows from how its arguments move it."""
    given = [[torch.tensor([x], dtype=torch.float64)] for x in (right, moved)]
    _require_close([torch.tensor([near], dtype=torch.float64)], *given)
    with pytest.raises(RuntimeError, match="differs by"):
        _require_close([torch.tensor([far], dtype=torch.float64)], *given)


def test_the_last_digits_of_arguments_differ() -> None:
    """Of all numbers, each in its precision and by that of the largest of its tensor."""
    tensors = [torch.tensor([8.0, 0.0, -1.0]), torch.arange(3), torch.ones(2, dtype=torch.float64)]
    found = _disturb(tensors)
    digit = torch.finfo(torch.float32).eps
    assert ((found[0] - tensors[0]).abs() / digit).tolist() == pytest.approx([8.0] * 3, rel=0.2)
    assert torch.equal(found[1], tensors[1])
    digit = torch.finfo(torch.float64).eps
    assert ((found[2] - tensors[2]).abs() / digit).tolist() == pytest.approx([1.0] * 2, rel=0.5)
