"""Parts of benchmarks/speed.py: what is measured, who is measured, and what is made of it."""
