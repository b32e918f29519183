"""The faults that vmtest is tested with: `python -m tests.faults` injects each of them."""
