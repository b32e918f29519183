"""vmtest boots a matrix of Linux kernels and runs eBPF test suites in each of them."""
