"""Criterion and gradient, and the whole search, in compiled sweeps over small models."""
