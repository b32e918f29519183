"""kernels.toml: read, checked, and chosen from."""
