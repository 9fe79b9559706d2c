"""Weights with a spread, and the Predictor that mixes what they say. May import train and below.

Comes in: weights from training. Goes out: a `Predictor`, one file on disk, whose `Prediction`s
carry every variance by name.
"""

from surefoot.posteriors.ensemble import EnsembleSettings
from surefoot.posteriors.ivon import IvonSettings
from surefoot.posteriors.laplace import LaplaceSettings
from surefoot.posteriors.predictor import POSTERIORS
from surefoot.posteriors.shallow import ShallowSettings
from surefoot.posteriors.swag import SwagSettings

__all__ = ["METHODS", "POSTERIORS"]

METHODS = {
    "ensemble": EnsembleSettings,
    "shallow": ShallowSettings,
    "swag": SwagSettings,
    "ivon": IvonSettings,
    "laplace": LaplaceSettings,
}
"""Name in a config → how the spread of the weights comes about; it ends in one of `POSTERIORS`."""
