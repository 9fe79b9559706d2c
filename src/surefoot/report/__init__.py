"""Reports: HTML pages that open by a double click and load nothing, and the plots in them.

Comes in: figures and records of other rooms. Goes out: text. May import evaluate and what lies
below; knows no command line.
"""
