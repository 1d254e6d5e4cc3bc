"""Elimination by blocks: the engine that needs NumPy and LAPACK only."""
