from __future__ import annotations

import os
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
from jaxtyping import install_import_hook

ROOT = Path(__file__).resolve().parents[1]

# one cache of compiled programs for all test processes and all runs: a program compiles once
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax-tests"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# most of the suite's time is the compiler's, and most programs run for a moment
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
# the older code generator compiles such programs in a quarter of the time, and they run equally fast
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_use_fusion_emitters=false"
# on a single core such a program computes wrong gradients of the image network: two threads even there
if os.cpu_count() == 1:
    os.environ["NPROC"] = "2"

# Shapes and types of arrays are checked at each call. The front door checks its input itself.
from tests.typecheck import check  # noqa: E402

CHECKED = "ops deconvolution kernel_estimation losses metrics nets engine methods pretrain"
install_import_hook([f"jbid.{name}" for name in CHECKED.split()], f"{check.__module__}.{check.__name__}")

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def unchecked():
    """No check of shapes and types, for tests of what jbid itself says about bad input."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def golden():
    """Loader of numbers from the authors' code."""
    return lambda name: np.load(GOLDEN / f"{name}.npz")


@pytest.fixture(scope="session")
def levin_folder():
    """Folder of Levin's images; skips the test without them."""
    folder = Path(os.environ.get("JBID_DATA", "")) / "levin"
    if "JBID_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("needs Levin's images: set JBID_DATA to the folder that holds levin/")
    return folder


@pytest.fixture(scope="session")
def lai_folder(levin_folder):
    """Folder of Lai's images; skips the test without them."""
    folder = levin_folder.parent / "lai"
    if not folder.is_dir():
        pytest.skip("needs Lai's images beside Levin's in JBID_DATA")
    return folder


@pytest.fixture(scope="session")
def levin_set(tmp_path_factory):
    """A small synthetic set in the layout of Levin's: two scenes of 72 pixels and the kernels 1, 2 and 5."""
    import jax
    from skimage import data

    from jbid.io.images import write_image, write_kernel
    from jbid.ops.conv import blur, crop_center
    from jbid.ops.motion import motion_kernels

    folder = tmp_path_factory.mktemp("data") / "levin"
    for part in ("gt", "kernels", "blurry"):
        (folder / part).mkdir(parents=True)
    kernels = np.asarray(motion_kernels(jax.random.key(0), 11, 3, "gaussian_process"))
    scenes = data.camera()[60:142, 180:262], data.coins()[60:142, 70:152]
    for i, scene in enumerate(scenes, 1):
        sharp = scene[..., None].astype(np.float32) / 255
        write_image(folder / "gt" / f"im{i}.png", crop_center(sharp, (11, 11)))
        for k, kernel in zip((1, 2, 5), kernels):
            # these kernels of the set are stored rotated
            write_kernel(folder / "kernels" / f"kernel{k}.png", kernel[::-1, ::-1])
            write_image(folder / "blurry" / f"im{i}_kernel{k}_img.png", np.asarray(blur(sharp, kernel)))
    return folder
