"""Values only: kernels, projects, results, loads, events."""
