"""What users call, and the fit that they get."""
