"""Batched relaxation: many structures at once, each leaving the batch when it is done."""

from surefoot.relax.fire import Fire
from surefoot.relax.lbfgs import Lbfgs

Optimizer = Lbfgs | Fire

OC20 = Lbfgs(memory=50, stiffness=70.0, longest_step=0.04)
"""The optimiser published for relaxations of OC20, with at most 300 steps to fmax 0.02 eV/Å."""
