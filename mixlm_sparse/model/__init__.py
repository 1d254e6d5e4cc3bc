"""The fitted model, what it says of any rows, and its file."""
