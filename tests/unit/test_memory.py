"""What is freed is used again, without the system clearing each page anew."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
from surefoot.memory import LARGE, keep_memory, make_room

{call}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
size = 64 * 2**20
for turn in range(5):
    before = faults()
    bytearray(size)
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_memory_is_kept() -> None:
    keep = "assert keep_memory()"
    roomy = f"{keep}; make_room(LARGE + 1)"
    pages = {}
    for call in ("", keep, f"{keep}; make_room(LARGE)", roomy):
        program = [sys.executable, "-c", PROGRAM.format(call=call)]
        done = subprocess.run(program, check=True, capture_output=True, text=True)
        pages[call] = int(done.stdout)
    assert pages[""] > 10_000  # of 4 kB
    assert pages[keep] < 100
    assert pages[f"{keep}; make_room(LARGE)"] < 100
    assert pages[roomy] > 10_000  # a large batch takes what it needs, no more
