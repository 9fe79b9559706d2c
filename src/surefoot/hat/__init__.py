"""Hydrogen-atom transfer: peptides, the hydrogens they can give away, radicals, and geometries.

Comes in: names of residues and radicals, or structures. Goes out: frames to label, each with what
it is in its info. May import everything but the command line; knows no quantum-chemical code.
"""
