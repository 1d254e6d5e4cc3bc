"""Benchmarks of mixlm_sparse beside lme4 and other packages; see benchmarks/README.md."""
