"""What theta means: one structure of random effects a class, found by name in one registry."""
