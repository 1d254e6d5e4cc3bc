"""Predictions on the rows of a fit or on new ones, with their standard errors."""
