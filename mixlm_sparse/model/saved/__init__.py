"""Fitted models in files: JSON and arrays in one zip archive, never pickle."""
