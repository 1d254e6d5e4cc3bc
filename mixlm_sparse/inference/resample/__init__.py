"""Resampling: the bootstrap and tests that simulate."""
