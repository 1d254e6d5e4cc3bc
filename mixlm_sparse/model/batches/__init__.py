"""Models whose rows come in batches: their products, and their rows when asked for again."""
