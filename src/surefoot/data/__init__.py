"""User files in, graphs and targets out: read, check, convert, split, batch, measure.

Comes in: any file ASE reads. Goes out: `Frame`s, then `Graph` and `Targets`. The only room
that judges user data. May import graph and neighbors, nothing higher.
"""
