"""JSON Schemas of the files that vmtest reads and leaves, for editors and other programs."""
