"""What knows nothing of models: errors, text, checks of arguments, progress, processes, types."""
