"""What single rows and groups of rows do to a fit."""
