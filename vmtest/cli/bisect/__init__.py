"""``vmtest bisect``: over packages, over a tree's commits, and one step of your own bisect."""
