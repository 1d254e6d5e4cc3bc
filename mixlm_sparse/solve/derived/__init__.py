"""Systems made from another system: with other rows, responses or weights."""
