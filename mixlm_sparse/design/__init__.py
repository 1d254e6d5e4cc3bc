"""Formula and data to a recipe (names, levels, states: no rows) and its rows."""
