# SPDX-License-Identifier: MIT
"""The loader of `vmtest verify`: loads objects in a guest and says why a load failed."""
