"""Models whose residuals are correlated or have unequal variances: rows whitened for each rho."""
