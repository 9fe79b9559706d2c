"""Results come in order, and nothing begins after an interruption."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from surefoot.hat.tasks import run_all


@pytest.mark.parametrize("workers", [None, 1, 3])
def test_results_in_order(workers: int | None) -> None:
    found: list[int] = []
    if workers is None:
        run_all(abs, [-3, 2, -1], None, found.append)
    else:
        with ThreadPoolExecutor(workers) as pool:
            run_all(abs, [-3, 2, -1], pool, found.append)
    assert found == [3, 2, 1]


def test_what_has_not_begun_never_does() -> None:
    begun: list[int] = []
    go = Event()

    def work(number: int) -> int:
        begun.append(number)
        if number:
            go.wait(10)
        return number

    def stop(_result: int) -> None:
        raise KeyboardInterrupt

    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(KeyboardInterrupt):
            run_all(work, range(50), pool, stop)
        go.set()
    assert len(begun) <= 2
