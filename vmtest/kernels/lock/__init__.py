"""kernels.lock: written, read, and a source of its own."""
