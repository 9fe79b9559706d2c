"""Files that are damaged, or made to harm, for every reader; see `fuzz.py`."""
