"""Weights with a spread, and the Predictor that mixes what they say. May import train and below.

Comes in: weights from training. Goes out: a `Predictor`, one file on disk, whose `Prediction`s
carry every variance by name.
"""

from surefoot.posteriors.predictor import POSTERIORS

__all__ = ["POSTERIORS"]
