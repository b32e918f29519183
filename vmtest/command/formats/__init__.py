"""Tests as other tools report them, read into test results (pure)."""
