"""Ways to find structures that may be worth labelling."""

from surefoot.active.explore.bands import Bands
from surefoot.active.explore.dynamics import Molecular
from surefoot.active.explore.modes import Modes
from surefoot.active.explore.pool import Pool
from surefoot.active.explore.rattle import Rattle
from surefoot.active.explore.transfers import Transfers
from surefoot.settings import Settings

EXPLORERS: dict[str, type[Settings]] = {
    "pool": Pool,
    "rattle": Rattle,
    "dynamics": Molecular,
    "modes": Modes,
    "bands": Bands,
    "transfers": Transfers,
}
"""Explorers by name; each is an `Explorer` whose fields are its settings."""
