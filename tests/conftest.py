from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def golden():
    """Loader of the authors' numbers."""
    return lambda name: np.load(GOLDEN / f"{name}.npz")


@pytest.fixture(scope="session")
def levin_folder():
    folder = Path(os.environ.get("JBID_DATA", "")) / "levin"
    if "JBID_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("needs Levin's images: set JBID_DATA to the folder that holds levin/")
    return folder
