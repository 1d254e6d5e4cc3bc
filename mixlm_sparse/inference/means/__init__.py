"""Marginal means and slopes: the reference grid, averages, contrasts, adjustments, tables."""
