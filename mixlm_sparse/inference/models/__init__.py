"""Comparisons of models: likelihood ratios, smaller models, other optimizers."""
