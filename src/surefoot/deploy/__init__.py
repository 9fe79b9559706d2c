"""Doors to other programs: weights that other packages trained come in here.

A foreign file is read without executing anything in it (`records`) and turned into weights of our
own models; export to other programs will find its place here too.
"""
