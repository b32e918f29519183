"""Since which kernel or commit: a search over an ordered list, its rounds and its journal."""
