"""The store of kernels: each complete or absent, ready to boot."""
