"""Rotations by degree against whole matrices, with and without kernels."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from surefoot.blocks.frames import count_rows, edge_frames, orders, wigner_blocks
from surefoot.blocks.native import kernels, plain_only
from surefoot.blocks.turning import Ends, count_entries, ends_of, turn, turn_back
from surefoot.segments import group

ATOMS, EDGES = 5, 12
FORMS = {"kernels": nullcontext, "plain": plain_only}


@pytest.fixture(params=FORMS)
def form(request):
    with FORMS[request.param]():
        yield request.param


@pytest.fixture
def ends(generator) -> Ends:
    """Edges of all atoms but the last, in no order."""
    sides = torch.randint(ATOMS - 1, (2, EDGES), generator=generator)
    return ends_of(group(sides[0], ATOMS), group(sides[1], ATOMS))


def random(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def blocks(generator: torch.Generator, lmax: int, mmax: int) -> Tensor:
    return wigner_blocks(edge_frames(random(generator, EDGES, 3))[:, 0], lmax, mmax)


def whole(matrices: Tensor, lmax: int, mmax: int) -> Tensor:
    """The blocks as one matrix, entry by entry."""
    dense = matrices.new_zeros((*matrices.shape[:-1], count_rows(lmax, mmax), (lmax + 1) ** 2))
    rows, entry = list(orders(lmax, mmax)), 0
    for degree in range(lmax + 1):
        kept, size = min(degree, mmax), 2 * degree + 1
        for m in range(-kept, kept + 1):
            here = slice(degree**2, degree**2 + size)
            dense[..., rows.index((degree, m)), here] = matrices[..., entry : entry + size]
            entry += size
    assert entry == matrices.shape[-1]
    return dense


@pytest.mark.parametrize("channels", [1, 3, 16, 19])
@pytest.mark.parametrize(("lmax", "mmax", "more"), [(0, 0, 0), (4, 1, 0), (3, 2, 1), (6, 6, 0)])
def test_against_whole_matrices(lmax, mmax, more, channels, ends, form, generator) -> None:
    """At both ends and at one; also where an atom has higher degrees, or no edge."""
    matrices = blocks(generator, lmax, mmax)
    assert matrices.shape[-1] == count_entries(lmax, mmax)
    dense, size = whole(matrices, lmax, mmax), (lmax + 1) ** 2
    x = random(generator, ATOMS, (lmax + more + 1) ** 2, channels)
    found = turn(x, matrices, ends, lmax, mmax)
    expected = torch.cat([dense @ x[ends.atoms[side], :size] for side in (0, 1)], dim=-1)
    torch.testing.assert_close(found, expected)
    one = ends.only(1)
    messages = random(generator, EDGES, dense.shape[-2], channels)
    back = turn_back(messages, matrices, one, lmax, mmax, x.shape[-2])
    sums = torch.zeros_like(x)
    sums[:, :size].index_add_(0, ends.atoms[1], dense.mT @ messages)
    torch.testing.assert_close(back, sums)
    assert not back[-1].any()


def test_derivatives_of_second_order(ends, form, generator) -> None:
    matrices = blocks(generator, 2, 1).requires_grad_()
    x = random(generator, ATOMS, 9, 2).requires_grad_()
    messages = random(generator, EDGES, count_rows(2, 1), 4).requires_grad_()
    for function, given in (
        (lambda x, d: turn(x, d, ends, 2, 1), x),
        (lambda x, d: turn_back(x, d, ends, 2, 1, 9), messages),
    ):
        assert torch.autograd.gradcheck(function, (given, matrices), fast_mode=True)
        assert torch.autograd.gradgradcheck(function, (given, matrices), fast_mode=True)


def test_members_and_frames(ends, form, generator) -> None:
    """Members are a loop; edges that come twice add up twice."""
    matrices = torch.stack([blocks(generator, 3, 1), blocks(generator, 3, 1)])
    x = random(generator, 2, ATOMS, 16, 3)
    found = turn(x, matrices, ends, 3, 1)
    for member in (0, 1):
        torch.testing.assert_close(found[member], turn(x[member], matrices[member], ends, 3, 1))
    twice, both = matrices.repeat_interleave(2, dim=-2), ends.repeat(2)
    torch.testing.assert_close(
        turn(x, twice, both, 3, 1), found.repeat_interleave(2, dim=-3), rtol=0, atol=0
    )
    sums = turn_back(found.repeat_interleave(2, dim=-3), twice, both, 3, 1, 16)
    torch.testing.assert_close(sums, 2 * turn_back(found, matrices, ends, 3, 1, 16))


def test_no_edges(form) -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    ends = ends_of(group(nothing, 2), group(nothing, 2))
    x = torch.ones((2, 4, 3), dtype=torch.float64)
    found = turn(x, torch.zeros((0, 10), dtype=torch.float64), ends, 1, 1)
    assert found.shape == (0, 4, 6)
    back = turn_back(found, torch.zeros((0, 10), dtype=torch.float64), ends, 1, 1, 4)
    assert torch.equal(back, torch.zeros_like(x))


def test_what_does_not_fit_is_refused(ends, generator) -> None:
    """The kernels read raw memory."""
    x, matrices = random(generator, ATOMS, 9, 2), blocks(generator, 2, 1)
    if kernels(x) is None:
        pytest.skip("there is no C compiler here.")
    for atoms, rotations, degree in (
        (x[:-2], matrices, 2),
        (x[:, :4], matrices, 2),
        (x, matrices[:-1], 2),
        (x, matrices, 1),
    ):
        with pytest.raises(ValueError, match=r"do not fit|end at atoms"):
            turn(atoms, rotations, ends, degree, 1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"offsets": [0, 10**8, EDGES, EDGES, EDGES, EDGES]}, "do not rise"),
        ({"offsets": [-3, 3, 4, 5, 6, EDGES]}, "do not rise"),
        ({"offsets": [0, 3, 4, 5, 6, EDGES + 1]}, "do not rise"),
        ({"order": [10**9, *range(EDGES - 1)]}, "names edges .* to 1000000000"),
        ({"order": [-1, *range(EDGES - 1)]}, "names edges -1 to"),
        ({"atoms": [-1] * EDGES}, "edges end at atoms -1"),
        ({"atoms": [ATOMS] * EDGES}, "there are 5"),
    ],
)
def test_orders_of_edges_that_lie_are_refused(changes, words: str, ends, generator) -> None:
    x, matrices = random(generator, ATOMS, 9, 2), blocks(generator, 2, 1)
    if kernels(x) is None:
        pytest.skip("there is no C compiler here.")
    wrong = replace(ends.only(0), **{name: torch.tensor([v]) for name, v in changes.items()})
    with pytest.raises(ValueError, match=words):
        turn(x, matrices, wrong, 2, 1)
    with pytest.raises(ValueError, match=words):
        turn_back(random(generator, EDGES, count_rows(2, 1), 2), matrices, wrong, 2, 1, 9)


def test_offsets_without_edges_are_looked_at(generator) -> None:
    if kernels(torch.zeros(1)) is None:
        pytest.skip("there is no C compiler here.")
    nothing = torch.zeros(1, 0, dtype=torch.int64)
    ends = Ends(nothing, nothing, torch.tensor([[0, 10**8, 0]]))
    with pytest.raises(ValueError, match="do not rise"):
        turn_back(torch.zeros(0, 4, 3), torch.zeros(0, 10), ends, 1, 1, 4)


def test_degrees_beyond_those_of_the_kernels_are_refused(ends, generator) -> None:
    """They keep the components of one degree in an array of fixed length."""
    for lmax, mmax in ((11, 1), (12, 1), (2, 3)):
        x = random(generator, ATOMS, (lmax + 1) ** 2, 2)
        if kernels(x) is None:
            pytest.skip("there is no C compiler here.")
        matrices = random(generator, EDGES, count_entries(lmax, mmax))
        with (
            nullcontext() if lmax == 11 else pytest.raises(ValueError, match="0 ≤ mmax ≤ lmax ≤ 11")
        ):
            turn(x, matrices, ends, lmax, mmax)
