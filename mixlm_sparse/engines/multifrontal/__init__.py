"""C as one sparse matrix: ordering, symbolic analysis, multifrontal Cholesky."""
