"""Harmonics, couplings and rotations against formulas of other kinds, and e3nn's frozen values."""

import math
import os
import runpy
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import lpmv
from torch.autograd import grad, gradcheck, gradgradcheck

from surefoot.blocks import angular
from surefoot.blocks.angular import MAX_DEGREE, clebsch_gordan, harmonics, sign_in_e3nn_04, wigner

ORACLES = Path(__file__).parents[2] / "science" / "oracles"
REFLECTION = torch.diag(torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64))


def directions(generator: torch.Generator, count: int) -> torch.Tensor:
    """Vectors of lengths 0.2 to 5 at random, and the six half axes."""
    anywhere = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    lengths = 0.2 + 4.8 * torch.rand(count, 1, generator=generator, dtype=torch.float64)
    axes = torch.eye(3, dtype=torch.float64)
    return torch.cat([anywhere / anywhere.norm(dim=-1, keepdim=True) * lengths, axes, -2 * axes])


def rotations(generator: torch.Generator, count: int) -> torch.Tensor:
    """Proper rotations."""
    found = torch.linalg.qr(torch.randn(count, 3, 3, generator=generator, dtype=torch.float64))[0]
    return found * torch.linalg.det(found)[:, None, None]


def of_degree(values: torch.Tensor, degree: int) -> torch.Tensor:
    return values[..., degree**2 : (degree + 1) ** 2]


def by_angles(vectors: np.ndarray) -> np.ndarray:
    """Harmonics to degree 11 by scipy's Legendre functions, in polar angles about y."""
    x, y, z = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).T
    azimuth = np.arctan2(x, z)
    columns = []
    for degree in range(MAX_DEGREE + 1):
        for m in range(-degree, degree + 1):
            k = abs(m)
            square = (2 * degree + 1) * math.factorial(degree - k) / math.factorial(degree + k)
            wave = np.sqrt(2) * (np.sin(k * azimuth) if m < 0 else np.cos(k * azimuth))
            # lpmv has the phase (−1)^m, which we have not.
            legendre = (-1) ** k * lpmv(k, degree, y)
            columns.append(math.sqrt(square) * legendre * (wave if m else 1.0))
    return np.stack(columns, axis=-1)


def test_harmonics_equal_the_formula_in_angles(generator) -> None:
    vectors = directions(generator, 40)
    expected = torch.tensor(by_angles(vectors.numpy()))
    for lmax in range(MAX_DEGREE + 1):
        found = harmonics(vectors, lmax)
        assert found.is_contiguous()
        torch.testing.assert_close(found, expected[:, : (lmax + 1) ** 2], rtol=0, atol=3e-13)


def test_low_degrees_by_hand(generator) -> None:
    vectors = directions(generator, 5)
    x, y, z = (vectors / vectors.norm(dim=-1, keepdim=True)).unbind(-1)
    root = math.sqrt(15)
    second = [x * z, x * y, (3 * y**2 - 1) / math.sqrt(12), y * z, (z**2 - x**2) / 2]
    first = [math.sqrt(3) * axis for axis in (x, y, z)]
    expected = torch.stack([torch.ones_like(x), *first, *(root * term for term in second)], dim=-1)
    torch.testing.assert_close(harmonics(vectors, 2), expected, rtol=0, atol=1e-14)


def test_addition_theorem(generator) -> None:
    """Σ_m Y_lm(u) Y_lm(v) = (2l + 1) P_l(u · v); at u = v that is the normalisation."""
    vectors = directions(generator, 20)
    unit = (vectors / vectors.norm(dim=-1, keepdim=True)).numpy()
    values = harmonics(vectors, MAX_DEGREE)
    for degree in range(MAX_DEGREE + 1):
        block = of_degree(values, degree).numpy()
        series = np.polynomial.Legendre.basis(degree)
        expected = (2 * degree + 1) * series(np.clip(unit @ unit.T, -1, 1))
        np.testing.assert_allclose(block @ block.T, expected, rtol=0, atol=1e-12)


def test_single_precision_is_kept_to_degree_eleven(generator) -> None:
    vectors = directions(generator, 500).float()
    found = harmonics(vectors, MAX_DEGREE)
    assert found.dtype == torch.float32
    error = (found.double() - harmonics(vectors.double(), MAX_DEGREE)).abs()
    for degree in range(MAX_DEGREE + 1):
        assert of_degree(error, degree).max() < 1e-6 * math.sqrt(2 * degree + 1)


@pytest.mark.parametrize("lmax", [0, 1, 4, 11])
def test_derivatives_to_second_order(lmax, generator) -> None:
    vectors = directions(generator, 1)[:1].requires_grad_()
    assert gradcheck(lambda v: harmonics(v, lmax), vectors, atol=1e-4, rtol=1e-5)
    if lmax <= 4:
        assert gradgradcheck(lambda v: harmonics(v, lmax), vectors)


def test_derivatives_of_orders_three_and_four(generator) -> None:
    """The second derivative is itself something that can be differentiated twice."""
    vectors = directions(generator, 1)[:1].requires_grad_()
    weights = torch.randn(16, generator=generator, dtype=torch.float64)

    def curvature(v: torch.Tensor) -> torch.Tensor:
        slope = grad((harmonics(v, 3) @ weights).sum(), v, create_graph=True)[0]
        return grad(slope.square().sum(), v, create_graph=True)[0]

    assert gradcheck(curvature, vectors)
    assert gradgradcheck(curvature, vectors)


def slopes(vectors: torch.Tensor, weights: torch.Tensor) -> list[torch.Tensor]:
    """Values, first and second derivatives of a function of the harmonics."""
    values = harmonics(vectors, 3)
    first = grad((values * weights).square().sum(), vectors, create_graph=True)[0]
    return [values, first, grad(first.square().sum(), vectors)[0]]


def test_members_share_the_values_and_have_their_own_derivatives(generator, monkeypatch) -> None:
    vectors = directions(generator, 4)
    weights = torch.randn(2, 3, 10, 16, generator=generator, dtype=torch.float64)
    singles = [
        [slopes(vectors.clone().requires_grad_(), weights[i, j]) for j in range(3)]
        for i in range(2)
    ]
    seen = []
    evaluate = angular._evaluate
    monkeypatch.setattr(
        angular, "_evaluate", lambda v, lmax: seen.append(v.shape) or evaluate(v, lmax)
    )
    stacked = slopes(vectors.expand(2, 3, -1, -1).clone().requires_grad_(), weights)
    assert seen == [(10, 3)]
    assert stacked[0].is_contiguous()
    for i in range(2):
        for j in range(3):
            for found, expected in zip(stacked, singles[i][j], strict=True):
                torch.testing.assert_close(found[i, j], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_length_has_no_direction_and_no_slope(dtype) -> None:
    """Also a length whose square is no normal number; an honest vector beside it is not touched."""
    tiny = math.sqrt(torch.finfo(dtype).tiny) / 4
    rows = [[0.0, 0.0, 0.0], [0.0, tiny, -tiny], [1.0, -2.0, 0.5]]
    weights = torch.linspace(-1, 1, 16, dtype=dtype)
    values, first, second = slopes(torch.tensor(rows, dtype=dtype, requires_grad=True), weights)
    assert (values[:2, 0] == 1).all()
    assert (values[:2, 1:] == 0).all()
    assert (first[:2] == 0).all()
    assert (second[:2] == 0).all()
    alone = slopes(torch.tensor(rows[2:], dtype=dtype, requires_grad=True), weights)
    for found, expected in zip((values, first, second), alone, strict=True):
        torch.testing.assert_close(found[2:], expected)
        assert expected.abs().max() > 0.1


def test_no_edges() -> None:
    vectors = torch.zeros(2, 0, 3, requires_grad=True)
    values = harmonics(vectors, 3)
    assert values.shape == (2, 0, 16)
    assert grad(values.sum(), vectors)[0].shape == (2, 0, 3)


def test_tables_first_made_in_inference_mode_still_take_part_in_derivatives(generator) -> None:
    angular._step.cache_clear()
    angular._gradient.cache_clear()
    vectors = directions(generator, 2).requires_grad_()
    frame = rotations(generator, 1)[0].requires_grad_()
    with torch.inference_mode():
        harmonics(vectors.detach(), 2)
        wigner(frame.detach(), 2)
        angular._gradient(2, torch.float64, vectors.device)
    first = grad(harmonics(vectors, 2).pow(3).sum(), vectors, create_graph=True)[0]
    assert grad(first.square().sum(), vectors)[0].isfinite().all()
    assert grad(wigner(frame, 2).sum(), frame)[0].isfinite().all()


@pytest.mark.parametrize("degree", [-1, 12])
def test_degrees_out_of_range_are_refused(degree) -> None:
    with pytest.raises(ValueError, match=f"harmonics is {degree}; it has to be from 0 to 11"):
        harmonics(torch.ones(1, 3), degree)
    with pytest.raises(ValueError, match=f"matrix is {degree}; it has to be from 0 to 11"):
        wigner(torch.eye(3), degree)


def test_wigner_turns_the_harmonics(generator) -> None:
    """By rotations and by reflections, against harmonics of the turned vectors."""
    vectors = directions(generator, 20)
    proper = rotations(generator, 4)
    for frames in (proper, proper @ REFLECTION):
        values = harmonics(vectors, MAX_DEGREE)
        turned = harmonics((vectors @ frames.mT).flatten(0, 1), MAX_DEGREE)
        turned = turned.unflatten(0, (4, -1))
        for degree in range(MAX_DEGREE + 1):
            found = of_degree(values, degree) @ wigner(frames, degree).mT
            torch.testing.assert_close(found, of_degree(turned, degree), rtol=0, atol=1e-12)


@pytest.mark.parametrize("degree", range(MAX_DEGREE + 1))
def test_wigner_is_an_orthogonal_representation(degree, generator) -> None:
    first, second = rotations(generator, 2)
    second = second @ REFLECTION
    product = wigner(first, degree) @ wigner(second, degree)
    torch.testing.assert_close(wigner(first @ second, degree), product, rtol=0, atol=1e-12)
    one = torch.eye(2 * degree + 1, dtype=torch.float64)
    torch.testing.assert_close(product @ product.mT, one, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        wigner(-first, degree), (-1) ** degree * wigner(first, degree), rtol=0, atol=1e-12
    )


def test_derivatives_of_wigner_to_second_order(generator) -> None:
    frames = rotations(generator, 1).requires_grad_()
    assert gradcheck(lambda r: wigner(r, 3), frames)
    assert gradgradcheck(lambda r: wigner(r, 3), frames)


def test_wigner_is_known_at_the_identity_and_in_batches(generator) -> None:
    frames = rotations(generator, 6).reshape(2, 3, 3, 3)
    torch.testing.assert_close(wigner(frames, 1), frames, rtol=0, atol=1e-14)
    batch = wigner(frames, 4)
    torch.testing.assert_close(batch[1, 2], wigner(frames[1, 2], 4))
    torch.testing.assert_close(wigner(torch.eye(3), 4), torch.eye(9), rtol=0, atol=1e-6)


def test_couplings_are_orthogonal() -> None:
    """Of two degrees, all couplings together are one orthogonal matrix."""
    for l1, l2 in [(1, 1), (2, 3), (4, 4), (11, 6), (11, 11)]:
        blocks = [
            math.sqrt(2 * l3 + 1) * clebsch_gordan(l1, l2, l3).flatten(0, 1)
            for l3 in range(abs(l1 - l2), l1 + l2 + 1)
        ]
        square = torch.cat(blocks, dim=1)
        one = torch.eye(square.shape[0], dtype=torch.float64)
        torch.testing.assert_close(square @ square.T, one, rtol=0, atol=1e-12)


@pytest.mark.parametrize("triple", [(1, 1, 1), (2, 1, 3), (3, 2, 2), (5, 4, 6), (11, 11, 11)])
def test_couplings_turn_with_their_degrees(triple, generator) -> None:
    frame = rotations(generator, 1)[0]
    first, second, third = (wigner(frame, degree) for degree in triple)
    coupling = clebsch_gordan(*triple)
    turned = torch.einsum("abc,ia,jb,kc->ijk", coupling, first, second, third)
    torch.testing.assert_close(turned, coupling, rtol=0, atol=1e-12)


def test_a_caller_cannot_spoil_the_couplings() -> None:
    before = clebsch_gordan(1, 2, 3)
    clebsch_gordan(1, 2, 3).zero_()
    assert before.dtype == torch.float64
    assert before.square().sum() == pytest.approx(1.0)
    assert torch.equal(clebsch_gordan(1, 2, 3), before)


@pytest.mark.parametrize(
    ("triple", "message"),
    [
        ((1, 2, 4), "couple to degrees 1 to 3, not to 4"),
        ((3, 1, 1), "couple to degrees 2 to 4, not to 1"),
        ((1, -1, 1), "0 or more; got 1, -1 and 1"),
    ],
)
def test_couplings_that_do_not_exist_are_refused(triple, message) -> None:
    with pytest.raises(ValueError, match=message):
        clebsch_gordan(*triple)


VERSIONS = pytest.mark.parametrize("version", ["0.4.4", "0.6.0"])


@VERSIONS
def test_harmonics_and_couplings_equal_those_of_e3nn(version) -> None:
    """Signs included, for they decide what the weights of its models mean."""
    frozen = np.load(ORACLES / f"e3nn_{version}.npz")
    found = harmonics(torch.tensor(frozen["vectors"]), MAX_DEGREE)
    np.testing.assert_allclose(found, frozen["harmonics"], rtol=0, atol=1e-12)

    def flat_coupling(triple: list[int]) -> np.ndarray:
        sign = sign_in_e3nn_04(*triple) if version == "0.4.4" else 1
        return sign * clebsch_gordan(*triple).flatten().numpy()

    ends = np.cumsum(frozen["counts"])[:-1]
    places, values = (np.split(frozen[name], ends) for name in ("places", "values"))
    assert len(frozen["triples"]) == 65
    for triple, place, value in zip(frozen["triples"].tolist(), places, values, strict=True):
        coupling = flat_coupling(triple)
        expected = np.zeros(coupling.size)
        expected[place] = value
        np.testing.assert_allclose(coupling, expected, rtol=0, atol=1e-14)
    single = [frozen[f"high_{name}"].tolist() for name in ("triples", "places", "values")]
    assert len(single[0]) == 203
    for triple, place, value in zip(*single, strict=True):
        assert flat_coupling(triple)[place] == pytest.approx(value, abs=1e-14)


@VERSIONS
def test_the_frozen_values_are_those_of_their_script(version) -> None:
    """What it asks e3nn for, which takes no e3nn."""
    script = runpy.run_path(str(ORACLES / "e3nn_values.py"))
    with np.load(ORACLES / f"e3nn_{version}.npz") as frozen:
        assert str(frozen["e3nn_version"]) == version
        np.testing.assert_array_equal(frozen["vectors"], script["vectors"]())
        np.testing.assert_array_equal(frozen["triples"], script["triples"]())
        np.testing.assert_array_equal(frozen["high_triples"], script["high_triples"]())


@pytest.mark.slow
def test_the_frozen_values_are_what_e3nn_says_today(tmp_path) -> None:
    python = os.environ.get("SUREFOOT_E3NN_PYTHON")
    if python is None:
        pytest.skip("SUREFOOT_E3NN_PYTHON does not name a Python with e3nn 0.4.4 or 0.6.0.")
    command = [python, str(ORACLES / "e3nn_values.py"), str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (written,) = tmp_path.iterdir()
    with np.load(written) as fresh, np.load(ORACLES / written.name) as frozen:
        assert set(fresh.files) == set(frozen.files)
        for key in set(frozen.files) - {"torch_version"}:
            if frozen[key].dtype.kind == "f":
                np.testing.assert_allclose(fresh[key], frozen[key], rtol=0, atol=2e-13, err_msg=key)
            else:
                np.testing.assert_array_equal(fresh[key], frozen[key], err_msg=key)
