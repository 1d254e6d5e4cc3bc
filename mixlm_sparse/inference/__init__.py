"""What is uncertain: tests, intervals and comparisons read off a fitted model."""
