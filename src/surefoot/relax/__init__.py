"""Batched relaxation: many structures at once, each leaving the batch when it is done."""

from surefoot.relax.fire import Fire
from surefoot.relax.lbfgs import Lbfgs

Optimizer = Lbfgs | Fire
