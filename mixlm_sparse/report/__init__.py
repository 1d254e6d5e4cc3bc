"""Numbers to tables and pictures."""
