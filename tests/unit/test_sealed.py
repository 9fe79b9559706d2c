"""A record that is not as it was written is no record."""

import hashlib
import io
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
import pytest

from surefoot.sealed import require_signed, seal, sign, sum_up, unseal

RECORD = {
    "energy": -1 / 3,
    "text": "Å \n \ud800",
    "forces": [[1e-300, float("nan")]],
    "big": 10**40,
}


def test_records_come_back() -> None:
    record, checked = unseal(seal(RECORD))
    assert checked
    assert repr(record) == repr(RECORD)


def test_a_flipped_bit_is_found_or_changes_nothing() -> None:
    """JSON has several ways to write one record, such as 1e-300 and 1E-300."""
    line, harmless = seal(RECORD).rstrip(), 0
    for place in range(len(line)):
        for bit in range(8):
            damaged = line[:place] + bytes([line[place] ^ 1 << bit]) + line[place + 1 :]
            try:
                record, _ = unseal(damaged)
            except ValueError:
                continue
            assert repr(record) == repr(RECORD)
            harmless += 1
    assert harmless < 10


@pytest.mark.parametrize(
    "line", [b"", b"[1]", b"3", b"{" * 100_000, b"[" * 100_000, b"\xff", b"{}"]
)
def test_what_is_no_record_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"^it |Expecting|checksum"):
        unseal(line)


def test_records_without_a_checksum_may_be_taken() -> None:
    assert unseal(b'{"a": 1}', required=False) == ({"a": 1}, False)
    with pytest.raises(ValueError, match="checksum"):
        unseal(b'{"a": 1, "check": 2}', required=False)


def test_sums_of_the_beginning_of_a_file(tmp_path) -> None:
    path, content = tmp_path / "f", bytes(range(256)) * 5000
    path.write_bytes(content)
    assert sum_up(path).digest() == hashlib.sha256(content).digest()
    total = sum_up(path, 1_100_000)
    total.update(content[1_100_000:])
    assert total.digest() == hashlib.sha256(content).digest()


@pytest.mark.parametrize("version", ["earliest", "v110", "latest"])
def test_signed_files_of_hdf5(
    tmp_path: Path, version: Literal["earliest", "v110", "latest"]
) -> None:
    content = io.BytesIO()
    with h5py.File(content, "w", libver=version) as file:
        file["x"] = np.arange(200.0)
    path, signed = tmp_path / "a.h5", sign(content.getvalue())
    path.write_bytes(signed)
    require_signed(path)
    with h5py.File(path) as file:
        assert file["x"][:].sum() == 19900.0  # type: ignore[index]
    for place in range(0, len(signed), 7):
        path.write_bytes(signed[:place] + bytes([signed[place] ^ 4]) + signed[place + 1 :])
        with pytest.raises(ValueError, match=r"does not match its sum|no file of HDF5"):
            require_signed(path)
    for length in (0, 5, 100, len(signed) - 1):
        path.write_bytes(signed[:length])
        with pytest.raises(ValueError, match=r"does not match its sum|no file of HDF5"):
            require_signed(path)
    path.write_bytes(content.getvalue())  # as versions before wrote it
    require_signed(path)
