"""Data that come in batches: sources, what is learned from them, and the rows of each batch."""
