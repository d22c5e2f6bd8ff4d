"""Measuring what was written: whether it can be read, how far it is from real ink, in whose hand it seems to be."""
