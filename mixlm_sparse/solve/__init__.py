"""Rows to products, products to the criterion, the criterion to its optimum."""
