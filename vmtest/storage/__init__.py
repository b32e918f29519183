"""The cache as a user sees it: carried elsewhere, and made smaller."""
