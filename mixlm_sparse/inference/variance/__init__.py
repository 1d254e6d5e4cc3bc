"""Standard errors, intervals and profiles of variance parameters."""
