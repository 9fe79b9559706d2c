"""Runs that are killed at random moments and whose files are damaged; see `torture.py`."""
