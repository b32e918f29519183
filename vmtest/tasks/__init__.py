"""What can be done in a booted kernel: each module a ``Task`` for ``work.run_kernel``."""
