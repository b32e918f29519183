"""The guest's user space: built once, cached, or the host's own."""
