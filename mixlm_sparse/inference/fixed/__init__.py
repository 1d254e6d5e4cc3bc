"""Tests of coefficients, terms and marginal means."""
