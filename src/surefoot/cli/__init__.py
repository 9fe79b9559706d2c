"""The command line: one program, one file per verb. May import everything; nothing imports it.

Verbs import what they need when they run, so that `surefoot --help` stays quick.
"""
