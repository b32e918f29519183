"""`vmtest init`: what a repository has (look), and the files that make a start (draft)."""
