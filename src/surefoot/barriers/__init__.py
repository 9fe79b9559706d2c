"""Barriers of hydrogen transfers with error bars: rigid scans, bands, saddle points, rates."""
