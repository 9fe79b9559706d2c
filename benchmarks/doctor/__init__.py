"""Sound files, what is done to them, and the page of what the doctor says; see `doctor.py`."""
