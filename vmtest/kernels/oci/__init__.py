"""Kernels from container images, by skopeo."""
