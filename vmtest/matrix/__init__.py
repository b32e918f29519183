"""Kernels x work: what is planned, who runs it, and what becomes of each kernel."""
