import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from surefoot.blocks.angular import clebsch_gordan, wigner
from surefoot.blocks.couplings import (
    Irrep,
    Irreps,
    SymmetricCouplings,
    couple_irreps,
    format_irreps,
    parse_irreps,
    project_couplings,
    symmetric_couplings,
)

CASES = [
    ("0e + 1o + 2e + 3o", "0e", 2),
    ("0e + 1o + 2e + 3o", "1o", 2),
    ("0e + 1o + 2e + 3o", "0e", 3),
    ("0e + 1o + 2e + 3o", "1o", 3),
    ("0e + 1o + 2e + 3o", "2e", 3),
    ("0e + 1o + 2e", "1e", 3),
    ("0e + 1o + 2e", "0e", 4),
    ("0e + 1o + 2e + 0o + 1e + 2o", "0e", 3),
    ("0e + 1o + 2e + 0o + 1e + 2o", "2o", 2),
    ("1o + 1e", "1o", 4),
    ("2e", "2e", 4),
    ("4e", "0e", 5),
]


def irreps(text: str) -> Irreps:
    return tuple(irrep for _, irrep in parse_irreps(text))


def couplings_of(inputs: str, output: str, order: int) -> SymmetricCouplings:
    return symmetric_couplings(irreps(inputs), irreps(output)[0], order)


def dense_couplings(couplings: SymmetricCouplings) -> np.ndarray:
    """Symmetric tensors (paths, dim, …, dim, 2L+1): coefficients shared out among all orders."""
    order, dim = couplings.order, couplings.dim
    tensor = np.zeros((len(couplings.values),) + (dim,) * order + (couplings.output.dim,))
    for term, monomial in enumerate(couplings.monomials.tolist()):
        places = set(itertools.permutations(monomial))
        for place in places:
            tensor[(slice(None), *place)] = couplings.values[:, term] / len(places)
    return tensor


def evaluate(couplings: SymmetricCouplings, features: np.ndarray) -> np.ndarray:
    products = features[couplings.monomials].prod(1)
    return np.einsum("ktM,t->kM", couplings.values, products)


def contract(tensors: np.ndarray, features: np.ndarray, order: int) -> np.ndarray:
    """The first axes of the tensors with the same features, one after the other."""
    for _ in range(order):
        tensors = np.tensordot(features, tensors, 1)
    return tensors


def representation(inputs: Irreps, rotation: np.ndarray, inversion: int) -> np.ndarray:
    dim = sum(irrep.dim for irrep in inputs)
    matrix, start = np.zeros((dim, dim)), 0
    for irrep in inputs:
        block = wigner(torch.from_numpy(rotation), irrep.degree).numpy()
        part = slice(start, start + irrep.dim)
        matrix[part, part] = block * (irrep.parity if inversion == -1 else 1)
        start += irrep.dim
    return matrix


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    matrix = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return matrix * np.linalg.det(matrix)


def multiplicity(inputs: Irreps, output: Irrep, order: int) -> int:
    """How often the output is in Sym^n(inputs), by integrating characters over O(3).

    Characters of symmetric powers follow from those of g, g², … by Newton's identities. The
    integrand is a trigonometric polynomial: equally spaced angles integrate it exactly.
    """
    degree = max(irrep.degree for irrep in inputs) * order + output.degree + 2
    angles = 2 * np.pi * np.arange(degree + 1) / (degree + 1)
    weights = (1 - np.cos(angles)) / (degree + 1)

    def character(irrep: Irrep, power: int, sign: int) -> np.ndarray:
        turns = np.arange(-irrep.degree, irrep.degree + 1)
        parity = irrep.parity if sign == -1 and power % 2 else 1
        return parity * np.cos(power * np.outer(angles, turns)).sum(1)

    total = 0.0
    for sign in (1, -1):
        sums = [sum(character(i, k, sign) for i in inputs) for k in range(1, order + 1)]
        symmetric = [np.ones_like(angles)]
        for n in range(1, order + 1):
            terms = [sums[k - 1] * symmetric[n - k] for k in range(1, n + 1)]
            symmetric.append(np.sum(terms, axis=0) / n)
        total += 0.5 * float(weights @ (symmetric[order] * character(output, 1, sign)))
    assert abs(total - round(total)) < 1e-9
    return round(total)


def generalised_clebsch_gordan(inputs: Irreps, output: Irrep, order: int) -> np.ndarray:
    """All chains of couplings, one factor after the other: neither symmetric nor independent."""
    dim = sum(irrep.dim for irrep in inputs)
    starts = np.cumsum([0, *(irrep.dim for irrep in inputs)])
    first = [
        np.eye(dim)[:, start : start + i.dim] for start, i in zip(starts, inputs, strict=False)
    ]
    chains = list(zip(inputs, first, strict=True))
    for _ in range(order - 1):
        longer = []
        for (left, tensor), (right, embed) in itertools.product(
            chains, zip(inputs, first, strict=True)
        ):
            for irrep in couple_irreps(left, right):
                table = clebsch_gordan(left.degree, right.degree, irrep.degree).numpy()
                longer.append((irrep, np.einsum("...m,in,mnM->...iM", tensor, embed, table)))
        chains = longer
    return np.stack([tensor for irrep, tensor in chains if irrep == output], axis=-1)


def test_an_irrep_knows_its_size_and_parity() -> None:
    assert [(str(i), i.dim, i.natural) for i in (Irrep(0, 1), Irrep(1, -1), Irrep(2, -1))] == [
        ("0e", 1, True),
        ("1o", 3, True),
        ("2o", 5, False),
    ]
    assert Irrep(1, -1) == Irrep(1, -1) != Irrep(1, 1)
    for degree, parity in ((-1, 1), (1, 0), (2, 2)):
        with pytest.raises(ValueError, match=f"degree {degree} and parity {parity} does not exist"):
            Irrep(degree, parity)


def test_text_is_read_into_the_house_layout() -> None:
    parsed = parse_irreps("16x1e+ 8x2e + 1o + 4 x 0e + 32x0o+3x1o")
    assert parsed == (
        (4, Irrep(0, 1)),
        (4, Irrep(1, -1)),
        (8, Irrep(2, 1)),
        (32, Irrep(0, -1)),
        (16, Irrep(1, 1)),
    )
    assert format_irreps(parsed) == "4x0e + 4x1o + 8x2e + 32x0o + 16x1e"
    assert parse_irreps(format_irreps(parsed)) == parsed


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "'' in the irreps '' is not understood"),
        ("64x0e + 64x1", "'64x1' in the irreps '64x0e \\+ 64x1' is not understood"),
        ("64x0e 64x1o", "is not understood; write <multiplicity>x<degree><e or o>"),
        ("-1x0e", "'-1x0e'"),
        ("64x1p", "'64x1p'"),
        ("64x0e + ", "'' in"),
        ("0x1o + 4x0e", "'0x1o' in the irreps '0x1o \\+ 4x0e' has no channels"),
    ],
)
def test_nonsense_is_refused(text, complaint) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_irreps(text)


def test_products_of_irreps() -> None:
    assert list(map(str, couple_irreps(Irrep(2, 1), Irrep(1, -1)))) == ["1o", "2o", "3o"]
    assert list(map(str, couple_irreps(Irrep(1, -1), Irrep(1, -1)))) == ["0e", "1e", "2e"]
    assert couple_irreps(Irrep(0, -1), Irrep(3, -1)) == (Irrep(3, 1),)


def test_one_factor_is_the_identity() -> None:
    couplings = couplings_of("0e + 1o + 2e", "2e", 1)
    assert couplings.monomials.tolist() == [[4], [5], [6], [7], [8]]
    assert np.array_equal(couplings.values, np.eye(5)[None])


def test_no_map_is_an_empty_basis() -> None:
    """One vector makes no pseudovector of itself, and an odd scalar no even one."""
    for inputs, output, order in (("1o", "1e", 2), ("0o", "0e", 3), ("0e", "1o", 1)):
        couplings = couplings_of(inputs, output, order)
        assert couplings.monomials.shape == (0, order)
        assert couplings.values.shape == (0, 0, couplings.output.dim)


def test_known_polynomials_of_a_scalar_and_a_vector() -> None:
    # ‖x² + y² + z²‖² = 3 as a tensor, and has to be 1/2!; r² x has 1 + 2/3 and 1/3!; s x has 1/2.
    square = couplings_of("1o", "0e", 2)
    assert square.monomials.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert square.values[0, :, 0] == pytest.approx(np.full(3, 1 / math.sqrt(6)), abs=1e-15)
    cube = couplings_of("1o", "1o", 3)
    features = np.array([0.3, -1.1, 0.7])
    expected = features @ features * features / math.sqrt(10)
    assert evaluate(cube, features)[0] == pytest.approx(expected, abs=1e-15)
    product = couplings_of("0e + 1o", "1o", 2)
    assert product.monomials.tolist() == [[0, 1], [0, 2], [0, 3]]
    assert product.values[0] == pytest.approx(np.eye(3), abs=1e-15)


@pytest.mark.parametrize(("inputs", "output", "order"), CASES)
def test_equivariant(inputs, output, order, rng) -> None:
    couplings = couplings_of(inputs, output, order)
    features = rng.normal(size=couplings.dim)
    rotation = random_rotation(rng)
    before = evaluate(couplings, features)
    assert np.abs(before).max() > 0.01
    for inversion in (1, -1):
        turned = representation(couplings.inputs, rotation, inversion) @ features
        expected = before @ representation((couplings.output,), rotation, inversion).T
        assert evaluate(couplings, turned) == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize(("inputs", "output", "order"), CASES)
def test_as_many_paths_as_characters_say(inputs, output, order) -> None:
    couplings = couplings_of(inputs, output, order)
    expected = multiplicity(couplings.inputs, couplings.output, order)
    assert expected > 0
    assert len(couplings.values) == expected


def test_complete_for_every_output_of_a_power() -> None:
    """All irreps of Sym³ together have as many components as there are monomials."""
    inputs = irreps("0e + 1o + 2e + 3o")
    outputs = [Irrep(degree, parity) for degree in range(10) for parity in (1, -1)]
    counts = [len(symmetric_couplings(inputs, output, 3).values) for output in outputs]
    assert counts == [multiplicity(inputs, output, 3) for output in outputs]
    assert sum(n * output.dim for n, output in zip(counts, outputs, strict=True)) == math.comb(
        18, 3
    )


@pytest.mark.parametrize(("inputs", "output", "order"), CASES[:9])
def test_orthonormal_and_equal_to_dense_tensors(inputs, output, order, rng) -> None:
    couplings = couplings_of(inputs, output, order)
    dense = dense_couplings(couplings)
    vectors = np.moveaxis(dense, -1, 1).reshape(dense.shape[0] * dense.shape[-1], -1)
    identity = np.eye(len(vectors)) / math.factorial(order)
    assert vectors @ vectors.T == pytest.approx(identity, abs=1e-13)
    features = rng.normal(size=couplings.dim)
    expected = contract(np.moveaxis(dense, 0, -1), features, order).T
    assert evaluate(couplings, features) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("inputs", "output", "order"), CASES)
def test_monomials_are_rising_unique_and_needed(inputs, output, order) -> None:
    couplings = couplings_of(inputs, output, order)
    rows = [tuple(row) for row in couplings.monomials.tolist()]
    assert rows == sorted(set(rows))
    assert all(list(row) == sorted(row) for row in rows)
    assert couplings.values.any((0, 2)).all()
    nonzero = np.abs(couplings.values[couplings.values != 0])
    assert nonzero.min() > 1e-6  # far from the threshold: rounding decides no term


def test_selection_by_order_keeps_few_terms() -> None:
    inputs = "0e + 1o + 2e + 3o"
    counts = [len(couplings_of(inputs, "0e", order).monomials) for order in (1, 2, 3, 4)]
    assert counts == [1, 16, 77, 438]
    assert len(couplings_of(inputs, "1o", 3).monomials) == 278


def test_first_coefficients_are_positive() -> None:
    couplings = couplings_of("0e + 1o + 2e + 3o", "2e", 3)
    for path in couplings.values:
        first = path[np.flatnonzero(path.any(1))[0]]
        assert first[np.flatnonzero(first)[0]] > 0


def test_results_are_shared_and_read_only() -> None:
    couplings = couplings_of("0e + 1o", "0e", 2)
    assert couplings_of("0e + 1o", "0e", 2) is couplings
    for array in (couplings.values, couplings.monomials):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


@pytest.mark.slow
def test_same_in_every_process() -> None:
    script = (
        "import hashlib\n"
        "from surefoot.blocks.couplings import Irrep, symmetric_couplings\n"
        "inputs = tuple(Irrep(l, (-1) ** l) for l in range(4))\n"
        "for order in (1, 2, 3, 4)[::{step}]:\n"
        "    c = symmetric_couplings(inputs, Irrep(0, 1), order)\n"
        "digest = hashlib.sha256()\n"
        "for order in (1, 2, 3, 4):\n"
        "    c = symmetric_couplings(inputs, Irrep(0, 1), order)\n"
        "    digest.update(c.values.tobytes() + c.monomials.tobytes())\n"
        "print(digest.hexdigest())\n"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script.format(step=step)],
            env={"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": threads},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for step, seed, threads in ((1, "1", "1"), (-1, "2", "2"))
    }
    assert len(digests) == 1
    assert len(digests.pop().strip()) == 64


def test_inputs_out_of_order_are_refused() -> None:
    for wrong in ((Irrep(1, -1), Irrep(0, 1)), (Irrep(0, 1),) * 2, (Irrep(1, 1), Irrep(2, 1))):
        with pytest.raises(ValueError, match="are not in order; each irrep may be there once"):
            symmetric_couplings(wrong, Irrep(0, 1), 2)
    with pytest.raises(ValueError, match="order 0 has no factors"):
        symmetric_couplings((Irrep(0, 1),), Irrep(0, 1), 0)


def test_projection_undoes_a_mixture(rng) -> None:
    """What is not symmetric in the foreign tensors acts on nothing."""
    couplings = couplings_of("0e + 1o + 2e", "1o", 3)
    mixture = rng.normal(size=(len(couplings.values), 7))
    foreign = np.einsum("k...,kf->...f", dense_couplings(couplings), mixture)
    noise = rng.normal(size=foreign.shape)
    foreign += noise - noise.swapaxes(0, 2)
    assert project_couplings(couplings, foreign) == pytest.approx(mixture, abs=1e-12)


@pytest.mark.parametrize(
    ("inputs", "output", "order"),
    [("0e + 1o + 2e", "0e", 3), ("0e + 1o + 2e", "2e", 3), ("0e + 1o + 0o + 1e", "1o", 3)],
)
def test_chains_of_couplings_are_in_the_span(inputs, output, order, rng) -> None:
    couplings = couplings_of(inputs, output, order)
    foreign = generalised_clebsch_gordan(couplings.inputs, couplings.output, order)
    assert foreign.shape[-1] > len(couplings.values)
    projection = project_couplings(couplings, foreign)
    assert np.linalg.matrix_rank(projection, tol=1e-9) == len(couplings.values)
    features = rng.normal(size=couplings.dim)
    expected = contract(foreign, features, order)
    assert evaluate(couplings, features).T @ projection == pytest.approx(expected, abs=1e-12)


def test_foreign_tensors_outside_the_span_are_refused(rng) -> None:
    couplings = couplings_of("0e + 1o", "1o", 2)
    foreign = np.moveaxis(dense_couplings(couplings), 0, -1)
    project_couplings(couplings, foreign)
    for wrong in (foreign + 1e-7 * rng.normal(size=foreign.shape), foreign[:, :, [1, 2, 0]]):
        with pytest.raises(ValueError, match="not equivariant maps to 1o: relative residual"):
            project_couplings(couplings, wrong)
    # A monomial that no path has counts too.
    wrong = foreign.copy()
    wrong[0, 0, 0, 0] = 1e-6
    with pytest.raises(ValueError, match="relative residual"):
        project_couplings(couplings, wrong)


def test_foreign_tensors_of_another_shape_are_refused() -> None:
    couplings = couplings_of("0e + 1o", "1o", 2)
    with pytest.raises(ValueError, match=r"shape \(3, 4, 4, 2\) do not fit; expected \(4, 4, 3\)"):
        project_couplings(couplings, np.zeros((3, 4, 4, 2)))


def test_all_antisymmetric_tensors_have_no_weight() -> None:
    """The cross product of a vector with itself, and no path to project on."""
    couplings = couplings_of("1o", "1e", 2)
    cross = clebsch_gordan(1, 1, 1).numpy()[..., None]
    assert project_couplings(couplings, cross).shape == (0, 1)
    assert not project_couplings(couplings, np.zeros_like(cross)).any()
