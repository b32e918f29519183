"""``vmtest watch``: what a save changed, what is to be done about it, and the loop that does it."""
