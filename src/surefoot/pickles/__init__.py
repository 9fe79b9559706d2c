"""Pickles of other programs as inert records: read by a stack machine that calls nothing they name.

Comes in: bytes that nobody vouches for. Goes out: numbers, text, tensors, and names. May import
nothing of the package, so that files of data and of models are read by the same machine.
"""
