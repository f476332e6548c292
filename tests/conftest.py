from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

# one folder of compiled programs for the session and the processes it starts: what several tests run compiles once
CACHE = tempfile.TemporaryDirectory(prefix="jbid-test-cache-", ignore_cleanup_errors=True)
os.environ["JAX_COMPILATION_CACHE_DIR"] = CACHE.name
# the suite's time is that of the compiler, half of which goes into making programs fast that run for a moment
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
# the older code generator compiles such programs in a quarter of the time, and they run as fast
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_use_fusion_emitters=false"

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
