"""One virtual machine: accelerator, command line, console, connection, life and end."""
