"""What tests of traced and compiled graphs share."""

import warnings
from collections.abc import Callable

import pytest

from surefoot.compilation import Compiled


@pytest.fixture
def compiling(unchecked, tmp_path_factory, monkeypatch) -> None:
    """Nothing is left in the user's folder, and nothing found there.

    A size without a value is no int, which checks of types in tests would refuse.
    """
    monkeypatch.setenv("SUREFOOT_CACHE", str(tmp_path_factory.getbasetemp()))


@pytest.fixture
def tracing(compiling, monkeypatch) -> None:
    """The graph that would be compiled runs as it is: all but the C++, in less time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the import
        from torch._inductor import compile_fx
    monkeypatch.setattr(compile_fx, "compile_fx", lambda graph, _: graph)


@pytest.fixture
def count_graphs(monkeypatch) -> Callable[[], int]:
    """How many graphs were made since; a failure to make one fails the test."""
    made: list[Compiled] = []
    init = Compiled.__init__

    def remember(self: Compiled, *args: object) -> None:
        init(self, *args)
        made.append(self)

    monkeypatch.setattr(Compiled, "__init__", remember)

    def count() -> int:
        graphs = [graph for one in made for graph in one.graphs.values()]
        assert None not in graphs
        return len(graphs)

    return count
