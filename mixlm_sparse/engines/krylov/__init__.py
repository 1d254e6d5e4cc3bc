"""The engine without a factor: conjugate gradients and Lanczos, for crossed factors that fill."""
