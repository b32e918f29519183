"""BPF object files: compiled, chosen for a kernel, and read without libbpf."""
