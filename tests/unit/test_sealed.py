"""A record that is not as it was written is no record."""

import hashlib

import pytest

from surefoot.sealed import seal, sum_up, unseal

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
