"""Parts of benchmarks/guard.py: external pulls, frames of trajectories, thresholds and the page."""
