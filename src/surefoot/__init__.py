"""surefoot: interatomic potentials that know where the ground is firm.

The rooms, from low to high, are listed in DESIGN.md; nothing is imported here, so that
`surefoot --help` stays quick.
"""

__version__ = "0.1.0"
