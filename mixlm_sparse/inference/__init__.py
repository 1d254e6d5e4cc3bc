"""Tests, intervals and comparisons: what is read off a fitted model beyond its estimates."""
