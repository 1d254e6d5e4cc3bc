"""Objective and bounds to optimum, by exact gradient or without derivatives."""
