"""The command `mixlm`: fit, compare, predict and plan from the shell."""
