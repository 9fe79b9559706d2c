"""What a potential is, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from surefoot.elements import name_elements

if TYPE_CHECKING:
    from surefoot.posteriors.predictor import Predictor


def describe(predictor: Predictor) -> dict[str, str]:
    """By name, in the order in which one asks."""
    potential = predictor.potential
    states = {} if potential.states is None else {"states": potential.states.describe()}
    return {
        "model": potential.model.name,
        "head": potential.head.energy,
        "cutoff": f"{predictor.cutoff:g} Å",
        "elements": name_elements(potential.baseline.elements),
        **states,
        "posterior": f"{predictor.posterior.name}, draws: {predictor.draws}",
        "error bars": predictor.calibration.describe(),
        "ood": "none" if predictor.gate is None else predictor.gate.source,
    }
