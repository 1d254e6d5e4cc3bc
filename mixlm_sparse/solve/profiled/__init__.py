"""The profiled criterion of a system, as the searches see it: the adapter and what it knows."""
