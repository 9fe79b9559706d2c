"""Pure functions of trees of tensors, traced once as one graph and compiled.

The trace runs the function itself on tensors without values, derivatives of any order included, so
what is compiled is a plain list of operations: no autograd is left in it. Sizes of a batch stay
symbols; one compiled graph serves every batch.

Differs from `torch.compile`: nothing of the function's Python is analysed, and no guards of it are
looked at in each call; instead the first answer is compared with that of the function. Only what
trace and compiler take for granted about sizes is looked at, if there is anything.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

AXIS, BOUNDS = "axis", "bounds"
"""Keys of a dataclass field's metadata: along which axis its sizes vary, the first if not given;
and whether it holds bounds, which are one more than what they bound."""

DIGITS = 100
"""Largest difference of the first answers: so many times what the answer of the function moves by
when its arguments move by their last digit, and so many last digits of its largest value. Forces
that vanish by symmetry may then differ by what rounding leaves of them, and a total energy by what
it leaves of the part that weights make, however large the other is."""

Run = Callable[[list[Tensor]], list[Tensor]]
Sizes = Callable[[list[Tensor]], bool]
_compiling = threading.Lock()  # the compiler's state belongs to the process
_said: set[str] = set()  # reasons why compiling failed that somebody was told


_OPERATORS = torch.library.Library("surefoot", "DEF")


def operator(
    schema: str, run: Callable[..., Any], shapes: Callable[..., Any], *, device: str = "CPU"
) -> Callable[..., Any]:
    """A function that a traced graph holds as one node, without a look inside.

    It knows no derivative: autograd functions call it, forward and backward.

    Args:
        schema: name, arguments and results, as torch writes them; sizes may vary from call to call.
        run: what it computes.
        shapes: makes empty tensors of the shapes and precisions that `run` gives.
        device: where `run` computes, as torch's dispatcher names it.
    """
    name = schema.partition("(")[0]
    _OPERATORS.define(schema)
    _OPERATORS.impl(name, run, device)
    torch.library.register_fake(f"surefoot::{name}", shapes, lib=_OPERATORS)
    return getattr(torch.ops.surefoot, name).default  # type: ignore[no-any-return]


@dataclass
class Compiled:
    """A pure function as one compiled graph; it takes and gives the same.

    Arguments are trees: dictionaries hold tensors of fixed sizes (weights), tensors of dataclasses
    vary along the axis that the field's metadata names, other tensors along their last. What is
    not a tensor is a constant of the graph.

    There is one graph for each structure of the arguments, precision and number of threads, and
    apart from that for sizes of one, which a compiler treats as constants. Where compiling
    fails, and for batches without edges, the function itself serves; a failure is said once.

    Attributes:
        function: to compile.
        cache: makes the folder for what the compiler makes, shared by processes, and looks whether
            it is safe to execute what lies there; the compiler's own choice if None.
        form: what else an answer depends on, such as whether kernels are to be used.
        graphs: for each structure that was met, those of different sizes.
        broken: the structures for which no more are made, as compiling failed.
    """

    function: Callable[..., Any]
    cache: Callable[[], Path] | None = None
    form: Callable[[], object] = type(None)
    graphs: dict[Any, list[Program]] = field(default_factory=dict)
    broken: set[Any] = field(default_factory=set)

    @property
    def failed(self) -> bool:
        """Whether the function itself had to serve because compiling failed."""
        return bool(self.broken)

    def __call__(self, *trees: Any) -> Any:
        """What the function gives for these arguments."""
        leaves, spec = flatten(trees)
        if any(leaf.varies and leaf.tensor.numel() == 0 for leaf in leaves):
            return self.function(*trees)
        # A graph holds one layout in memory.
        tensors = [leaf.tensor.detach().contiguous() for leaf in leaves]
        key = (spec, self.form(), torch.get_num_threads(), tuple(map(_signature, leaves)))
        program = self._find(key, tensors)
        if program is None:
            with _compiling:
                program = self._find(key, tensors)
                if program is None and key not in self.broken:
                    pairs = zip(leaves, tensors, strict=True)
                    kept = [leaf._replace(tensor=tensor) for leaf, tensor in pairs]
                    return self._build(key, trees, kept, spec)
        if program is None:
            return self.function(*trees)
        with torch.no_grad():
            return rebuild(program.result, program.run(tensors))

    def _find(self, key: Any, tensors: list[Tensor]) -> Program | None:
        """What was compiled for such arguments, of sizes such as these."""
        known = self.graphs.get(key, [])
        return next((program for program in known if program.serves(tensors)), None)

    def _build(self, key: Any, trees: Any, leaves: list[Leaf], spec: Any) -> Any:
        """The answer of the graph that is made here, once it is known to be the function's."""
        expected = self.function(*trees)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the compiler's own, of which nobody can mend any
                program = _compile(self.function, leaves, spec, self.cache)
            tensors = [leaf.tensor for leaf in leaves]
            with torch.no_grad():
                found = program.run(tensors)
            moved = self.function(*rebuild(spec, _disturb(tensors)))
            answers = ([leaf.tensor.detach() for leaf in flatten(x)[0]] for x in (expected, moved))
            _require_close(found, *answers)
        except Exception as error:  # noqa: BLE001 - whatever a compiler may stumble over
            self.broken.add(key)
            lines = str(error).strip().splitlines()
            _say_once(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)
            return expected
        self.graphs.setdefault(key, []).append(program)
        # Not what the function gave: a run that goes on has to round as one that began earlier.
        return rebuild(program.result, found)


@dataclass(frozen=True)
class Program:
    """A compiled graph.

    Attributes:
        run: tensors in, tensors out.
        result: description of the tree that comes out.
        serves: whether it holds for the sizes of these tensors.
    """

    run: Run
    result: Any
    serves: Sizes


def _say_once(reason: str) -> None:
    """A warning for each reason, however many graphs share it."""
    if reason in _said:
        return
    _said.add(reason)
    warnings.warn(
        f"compiling failed ({reason}); everything is computed as without it, only slower.",
        RuntimeWarning,
        stacklevel=5,
    )


class Leaf(NamedTuple):
    """A tensor of a tree, and the axis along which its size varies, if any."""

    tensor: Tensor
    axis: int | None
    bounds: bool = False

    @property
    def varies(self) -> bool:
        """Whether there is a size that a graph may leave open: one item stays one item."""
        return self.axis is not None and self.tensor.shape[self.axis] != 1 + self.bounds


def flatten(tree: Any) -> tuple[list[Leaf], Any]:
    """The tensors of a tree in a fixed order, and a hashable description of the rest."""
    leaves: list[Leaf] = []
    return leaves, _flatten(tree, -1, leaves)


def _flatten(tree: Any, axis: int | None, leaves: list[Leaf], *, bounds: bool = False) -> Any:
    if isinstance(tree, Tensor):
        leaves.append(Leaf(tree, axis if tree.dim() else None, bounds))
        return Tensor
    if isinstance(tree, dict):
        # By name: a tree from a file may have another order.
        return dict, tuple((name, _flatten(tree[name], None, leaves)) for name in sorted(tree))
    if isinstance(tree, tuple | list):
        return tuple, tuple(_flatten(part, axis, leaves) for part in tree)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        parts = []
        for one in dataclasses.fields(tree):
            value = getattr(tree, one.name)
            axis, bounds = one.metadata.get(AXIS, 0), one.metadata.get(BOUNDS, False)
            parts.append((one.name, _flatten(value, axis, leaves, bounds=bounds)))
        return type(tree), tuple(parts)
    return None, tree


def rebuild(spec: Any, tensors: list[Tensor]) -> Any:
    """The tree of a description with these tensors."""
    return _rebuild(spec, iter(tensors))


def _rebuild(spec: Any, tensors: Any) -> Any:
    if spec is Tensor:
        return next(tensors)
    kind, parts = spec
    if kind is None:
        return parts
    if kind is tuple:
        return tuple(_rebuild(part, tensors) for part in parts)
    values = {name: _rebuild(part, tensors) for name, part in parts}
    return values if kind is dict else kind(**values)


def _signature(leaf: Leaf) -> Any:
    """What a graph depends on: all sizes but the varying one."""
    tensor = leaf.tensor
    if leaf.axis is None or not leaf.varies:
        return tensor.dtype, tensor.device, tensor.shape
    sizes: list[int | None] = list(tensor.shape)
    sizes[leaf.axis] = None
    return tensor.dtype, tensor.device, tuple(sizes)


def _compile(
    function: Callable[..., Any], leaves: list[Leaf], spec: Any, cache: Callable[[], Path] | None
) -> Program:
    """The compiled graph."""
    from torch._dispatch.python import enable_python_dispatcher
    from torch._guards import TracingContext, tracing
    from torch._inductor.compile_fx import compile_fx
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental import _config as symbols
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    # Two sizes that are equal today need not be tomorrow.
    sizes = ShapeEnv(duck_shape=False)
    mode = FakeTensorMode(shape_env=sizes, static_shapes=False, allow_non_fake_inputs=True)
    inputs = [_without_values(mode, leaf, place) for place, leaf in enumerate(leaves)]
    results: list[Any] = []

    def flat(*tensors: Tensor) -> list[Tensor]:
        found, result = flatten(function(*rebuild(spec, list(tensors))))
        results[:] = [result]
        return [leaf.tensor for leaf in found]

    with mode, enable_python_dispatcher():
        graph = make_fx(flat)(*inputs)
    _require_symbols(mode, inputs, leaves)
    # Otherwise a product of a few rows becomes one that serves for no more than those.
    general = symbols.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]
    with tracing(TracingContext(mode)), _caching_in(cache), general:
        run = compile_fx(graph, inputs)
    serves = _sizes_served(sizes, inputs, leaves)
    return Program(lambda tensors: list(run(*tensors)), results[0], serves)  # type: ignore[operator]


def _sizes_served(env: Any, inputs: list[Tensor], leaves: list[Leaf]) -> Sizes:
    """Whether what trace and compiler took for granted about sizes holds for those of tensors."""
    from torch.fx.experimental.symbolic_shapes import SYMPY_INTERP

    places = [
        (n, leaf.axis) for n, leaf in enumerate(leaves) if leaf.axis is not None and leaf.varies
    ]
    code = env.produce_guards_expression([inputs[n].shape[a] for n, a in places])
    if code is None:  # nothing, or what holds for all sizes
        return lambda _: True
    # As `ShapeEnv.evaluate_guards_expression`, which reads the text anew each time.
    holds = eval(f"lambda L: {code}", dict(SYMPY_INTERP))  # noqa: S307 - written by torch
    return lambda tensors: bool(
        holds({f"t{k}": tensors[n].shape[a] for k, (n, a) in enumerate(places)})
    )


@contextmanager
def _caching_in(cache: Callable[[], Path] | None) -> Iterator[None]:
    """The compiler's folder; it asks the environment, which is as before afterwards."""
    if cache is None:
        yield
        return
    name = "TORCHINDUCTOR_CACHE_DIR"
    before = os.environ.get(name)
    os.environ[name] = str(cache())
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _without_values(mode: Any, leaf: Leaf, place: int) -> Tensor:
    """A tensor that has sizes only; the varying one is a symbol."""
    from torch._dynamo.source import ConstantSource
    from torch.fx.experimental.symbolic_shapes import DimDynamic, StatelessSymbolicContext

    tensor = leaf.tensor.detach()
    sizes = [DimDynamic.STATIC] * tensor.dim()
    if leaf.axis is not None and leaf.varies:
        sizes[leaf.axis] = DimDynamic.DYNAMIC
    context = StatelessSymbolicContext(dynamic_sizes=sizes)
    source = ConstantSource(f"argument{place}")
    return mode.from_tensor(tensor, symbolic_context=context, source=source)


def _require_symbols(mode: Any, inputs: list[Tensor], leaves: list[Leaf]) -> None:
    """Refuse a graph that holds for the sizes of this batch only.

    Raises:
        RuntimeError: if the function looked at a size.
    """
    for tensor, leaf in zip(inputs, leaves, strict=True):
        if leaf.axis is None or not leaf.varies:
            continue
        size = tensor.shape[leaf.axis]
        if isinstance(size, int) or mode.shape_env.simplify(size.node.expr).is_number:
            raise RuntimeError(f"a size of {tuple(leaf.tensor.shape)} became a constant")


def _disturb(tensors: list[Tensor]) -> list[Tensor]:
    """The numbers among these tensors with another last digit, each of its own precision.

    The small values of a tensor move as far as the largest, so that no symmetry is left.
    """
    generator = torch.Generator().manual_seed(0)

    def disturb(x: Tensor) -> Tensor:
        if not x.is_floating_point() or x.numel() == 0:
            return x
        signs = torch.randint(2, x.shape, generator=generator).to(x) * 2 - 1
        return x + torch.finfo(x.dtype).eps * x.abs().max() * signs

    return [disturb(x) for x in tensors]


def _require_close(found: list[Tensor], expected: list[Tensor], moved: list[Tensor]) -> None:
    """Refuse answers that are not those of the function.

    Args:
        found: by the graph.
        expected: by the function.
        moved: by the function, for arguments that differ in their last digit.
    Raises:
        RuntimeError: naming the largest difference.
    """
    for one, right, other in zip(found, expected, moved, strict=True):
        if one.shape != right.shape or one.dtype != right.dtype:
            raise RuntimeError(f"the compiled graph gives {one.shape}, not {right.shape}")
        finite = right.isfinite()
        if not torch.equal(finite, one.isfinite()):
            raise RuntimeError("the compiled graph gives other values that are not finite")
        if not bool(finite.any()):
            continue
        digit = torch.finfo(right.dtype).eps if right.is_floating_point() else 0.0
        known = right[finite].double()
        error, move = (float((x[finite].double() - known).abs().max()) for x in (one, other))
        scale = float(known.abs().max())
        if not error <= DIGITS * (move + digit * scale):
            raise RuntimeError(f"the compiled graph differs by {error:.1e} of {scale:.1e}")
