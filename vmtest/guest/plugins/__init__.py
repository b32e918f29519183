# SPDX-License-Identifier: MIT
"""pytest in a guest: what runs it, reports each test, and knows `needs` and known failures."""
