"""Molecular dynamics of many structures in one process."""
