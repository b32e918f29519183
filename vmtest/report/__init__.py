"""A matrix, shown: pure functions of a ``Matrix``, so that old runs render again offline."""
