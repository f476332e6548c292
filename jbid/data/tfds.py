"""Levin's and Lai's sets for tensorflow_datasets, and whether their files are the ones they should be."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from importlib import import_module, resources
from pathlib import Path
from typing import Any

from PIL import Image

from jbid.io.images import read_image, write_image

# where each set is published and how its folder must look
FROM = {
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
    """SHA-256 of each file of a set, by its path in the set's folder."""
    lines = resources.files("jbid.data").joinpath("checksums", f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return {path: digest for digest, _, path in (line.partition("  ") for line in lines)}


def wrong_files(name: str, folder: Path) -> Iterator[tuple[str, str | None]]:
    """Files of a set, each with "missing", "other content", or None if it is correct."""
    for path, digest in checksums(name).items():
        file = folder / path
        if not file.is_file():
            yield path, "missing"
        else:
            yield path, None if hashlib.sha256(file.read_bytes()).hexdigest() == digest else "other content"


def features(shape: tuple[int | None, int | None, int]) -> Any:
    """Features of an example. The kernel is the file's: that of y = k * x if `convolved`, otherwise rotated."""
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
    """The examples of a set, images as paths, which are stored without decoding. Raises ValueError without folders."""
    root = data.root(Path(folder))
    with tempfile.TemporaryDirectory() as place:

        def plain(path):
            # an alpha channel would be stored as it is, and of arrays only TensorFlow makes files
            with Image.open(path) as image:
                if image.mode != "RGBA":
                    return str(path)
            copy = Path(place) / path.name
            write_image(copy, read_image(path))
            return str(copy)

        for name in data.NAMES:
            paths, convolved = data.files(root, name)
            blurred, sharp, kernel = map(plain, paths)
            told = {"name": name, "blurred": blurred, "sharp": sharp, "kernel": kernel}
            yield name, {**told, "convolved": int(convolved)}


def tfds_source(name: str, data: str | Path | None = None, data_dir: str | Path | None = None) -> Any:
    """The set "levin" or "lai" as a `tfds.data_source`, read without TensorFlow, prepared at first use.

    data: the set's own folder, as of `jbid.data.levin.root`. data_dir: where the prepared files are kept (default:
    tensorflow_datasets'). Raises ValueError for another name, missing folders and missing packages.
    """
    if name not in FROM:
        raise ValueError(f"got data set {name!r}, expected one of {', '.join(FROM)}")
    try:
        import array_record  # noqa: F401
        import tensorflow_datasets as tfds

        kind = import_module(f"jbid.data.jbid_{name}.jbid_{name}_dataset_builder").Builder
    except ImportError as error:
        raise ValueError(f"the package {error.name} is missing: pip install 'jbid[tfds]'") from None
    root = import_module(f"jbid.data.{name}").root(data)
    builder = kind(data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(root)))
    return builder.as_data_source(split="test")
