"""A run as one page for a browser: a file that asks nobody for anything."""
