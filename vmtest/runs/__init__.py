"""A run's folder: its files and rows, written and read back."""
