"""Measuring what was written: whether it can be read."""
