"""What tests of traced and compiled graphs share."""

from collections.abc import Callable

import pytest

from surefoot.compilation import Compiled


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
        assert not any(one.failed for one in made)
        return sum(len(programs) for one in made for programs in one.graphs.values())

    return count
