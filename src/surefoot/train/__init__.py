"""Learning: a loss of Output and Targets, one pure step, the only epoch loop, checkpoints.

Comes in: a `Potential`, samples, who learns from which. Goes out: weights and a log. A posterior
is an observer or a step of its own; nothing here knows one.
"""
