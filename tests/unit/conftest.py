"""What tests of several files share."""

from __future__ import annotations

from pathlib import Path

import pytest
import signed_archive


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The signed archive; whoever breaks it works on a copy."""
    folder = tmp_path_factory.mktemp("archive")
    signed_archive.make(folder)
    return folder
