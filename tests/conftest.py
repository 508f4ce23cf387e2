from __future__ import annotations

import os
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the reference outputs; always there."""
    return GOLDEN


@pytest.fixture(scope="session")
def cohorts() -> Path:
    """Folder of the real cohorts, or a skip that says how to name it."""
    folder = os.environ.get("BULKFORMER_TL_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("real cohorts are not here: set BULKFORMER_TL_DATA to their folder")
    return Path(folder)
