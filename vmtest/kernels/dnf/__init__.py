"""Kernels from repositories of .rpm packages, as dnf, yum and zypper read them."""
