# SPDX-License-Identifier: MIT
"""What runs inside the VM: standard library and pytest only, and nothing of the rest of vmtest."""
