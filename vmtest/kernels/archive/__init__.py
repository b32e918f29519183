"""What all archives of packages have in common: candidates, kept indexes, resolving."""
