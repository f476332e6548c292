"""Levin's and Lai's sets for tensorflow_datasets, and checksums of their files."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from importlib import import_module, resources
from pathlib import Path
from typing import Any

from PIL import Image

from jbid.io.images import read_image, write_image

# publication and folder layout of each set
SOURCES = {
    "levin": (
        "Levin et al., Understanding and evaluating blind deconvolution algorithms, CVPR 2009, in the release of "
        "SelfDeblur, https://github.com/csdwren/SelfDeblur: gt/im1.png to im4.png, kernels/kernel1.png to kernel8.png, "
        "blurry/im1_kernel1_img.png to im4_kernel8_img.png"
    ),
    "lai": (
        "Lai et al., A comparative study for single image blind image deblurring, CVPR 2016, "
        "http://vllab.ucmerced.edu/wlai24/cvpr16_deblur_study: ground_truth/manmade_01.png .., "
        "kernels/kernel_01.png to kernel_04.png, uniform/manmade_01_kernel_01.png .."
    ),
}


def checksums(name: str) -> dict[str, str]:
    """SHA-256 of the files behind the published scores, by path in the folder of a set, "levin" or "lai"."""
    lines = resources.files("jbid.data").joinpath("checksums", f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return {path: digest for digest, _, path in (line.partition("  ") for line in lines)}


def wrong_files(name: str, folder: Path) -> Iterator[tuple[str, str | None]]:
    """Compare the files of a set with their checksums.

    Args:
        name: "levin" or "lai".
        folder: of the set.

    Yields:
        The path of each file, with "missing", "other content", or None if it is correct.
    """
    for path, digest in checksums(name).items():
        file = folder / path
        if not file.is_file():
            yield path, "missing"
        else:
            yield path, None if hashlib.sha256(file.read_bytes()).hexdigest() == digest else "other content"


def features(shape: tuple[int | None, int | None, int]) -> Any:
    """Features of the examples of a set.

    Kernels are those of the files: of a true convolution y = k * x if "convolved" is 1, otherwise rotated by 180
    degrees.

    Args:
        shape: of the images; None: any side.
    """
    import numpy as np
    import tensorflow_datasets as tfds

    return tfds.features.FeaturesDict(
        {
            "name": tfds.features.Text(),
            "blurred": tfds.features.Image(shape=shape),
            "sharp": tfds.features.Image(shape=shape),
            "kernel": tfds.features.Image(shape=(None, None, shape[2])),
            "convolved": tfds.features.Scalar(np.int64),
        }
    )


def pairs(data: Any, folder: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Examples of a set by name; images are paths, because tensorflow_datasets copies files without decoding.

    Args:
        data: module of the set, such as `jbid.data.levin`.
        folder: of the set.

    Raises:
        ValueError: if the folder does not exist or has another layout.
    """
    root = data.root(Path(folder))
    with tempfile.TemporaryDirectory() as temporary:

        def remove_alpha(path):
            # arrays instead of paths would need TensorFlow
            with Image.open(path) as image:
                if image.mode != "RGBA":
                    return str(path)
            copy = Path(temporary) / path.name
            write_image(copy, read_image(path))
            return str(copy)

        for name in data.NAMES:
            paths, is_convolved = data.files(root, name)
            blurred, sharp, kernel = map(remove_alpha, paths)
            images = {"blurred": blurred, "sharp": sharp, "kernel": kernel}
            yield name, {"name": name, **images, "convolved": int(is_convolved)}


def tfds_source(name: str, data: str | Path | None = None, data_dir: str | Path | None = None) -> Any:
    """Open a set as a `tfds.data_source`, without TensorFlow; the first call prepares it.

    Args:
        name: "levin" or "lai".
        data: folder of the set, see `jbid.data.levin.root`.
        data_dir: folder of the prepared files; None: the default of tensorflow_datasets.

    Raises:
        ValueError: for another name, a missing folder or a missing package.
    """
    if name not in SOURCES:
        raise ValueError(f"`name` must be one of {', '.join(SOURCES)}, got {name!r}")
    try:
        import array_record  # noqa: F401
        import tensorflow_datasets as tfds

        builder_class = import_module(f"jbid.data.jbid_{name}.jbid_{name}_dataset_builder").Builder
    except ImportError as error:
        raise ValueError(f"the package {error.name} is not installed. Install jbid[tfds].") from None
    root = import_module(f"jbid.data.{name}").root(data)
    builder = builder_class(data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(root)))
    return builder.as_data_source(split="test")
