"""The Fourier deconvolution network of Kruse, Rother and Schmidt 2017 with its trained weights, as a peer.

Learning to Push the Limits of Efficient FFT-based Image Deconvolution, Eq. 9 and 10: ten stages, each of a network of
3x3 convolutions and a division of spectra. The weights (HDF5, BSD license) come from the authors' repository,
uschmidt83/fourier-deconvolution-network; reading them needs h5py.
"""

from __future__ import annotations

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft
import scipy.signal
from jax import Array
from numpy.typing import NDArray

STAGES = 10
FILTER = 5  # pixels; side of the linear filters
RIM = 20  # pixels by which the network's input is continued
WEIGHTS = "models/sigma_0.1-12.75/stages_01-10_finetuned.hdf5"
NOISES = (0.1, 12.75)  # range of the noise that the weights are for, of 255


@functools.cache
def load(folder: Path) -> list[dict[str, NDArray]]:
    """Weights of each stage: kernels and biases by layer."""
    import h5py

    stages = []
    with h5py.File(folder / WEIGHTS) as file:
        for t in range(1, STAGES + 1):
            group = file[f"model_{t + 1}"]
            names = [name.decode() for name in group.attrs["weight_names"]]
            # "conv1_3/kernel:0" of the fourth stage is "conv1/kernel"
            layers = [name[:-2].split("/") for name in names]
            stages.append({f"{a.rsplit('_', 1)[0]}/{b}": group[name][()] for (a, b), name in zip(layers, names)})
    return stages


def _filters() -> NDArray[np.float32]:
    """Basis of the filters: two-dimensional cosines without the constant one, (25, 24)."""
    eye = np.eye(FILTER * FILTER)[1:].reshape(-1, FILTER, FILTER)
    waves = scipy.fft.idct(scipy.fft.idct(eye, norm="ortho").transpose(0, 2, 1), norm="ortho")
    return waves.reshape(len(eye), -1).T.astype(np.float32)


def _transfer(psf: Array, shape: tuple[int, int]) -> Array:
    """Transfer functions of filters (..., s, s), centered at the origin."""
    h, w = psf.shape[-2:]
    padded = jnp.pad(psf, [(0, 0)] * (psf.ndim - 2) + [(0, shape[0] - h), (0, shape[1] - w)])
    return jnp.fft.fft2(jnp.roll(padded, (-(h // 2), -(w // 2)), (-2, -1)))


def _convolve(x: Array, kernel: Array, bias: Array) -> Array:
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dimensions) + bias


@functools.partial(jax.jit, static_argnames="is_first")
def _stage(weights: dict[str, Array], x: Array, y: Array, inside: Array, k: Array, sigma: Array, is_first: bool):
    z = jnp.reshape(1 / sigma**2, (1, 1))
    for i in range(1, 4):
        z = jax.nn.elu(z @ weights[f"dense{i}/kernel"] + weights[f"dense{i}/bias"])
    data_weight = jax.nn.softplus(z @ weights["lambda/kernel"] + weights["lambda/bias"])[0, 0]
    c = jnp.pad(x, RIM, mode="edge")[None, ..., None]
    for i in range(1, 6):
        c = jax.nn.elu(_convolve(c, weights[f"conv{i}/kernel"], weights[f"conv{i}/bias"]))
    c = _convolve(c, weights["conv6/kernel"], weights["conv6/bias"])[0, RIM:-RIM, RIM:-RIM, 0]
    filters = (_filters() @ weights["x_out/filter_weights"]).T.reshape(-1, FILTER, FILTER)
    penalty = (jnp.abs(_transfer(filters, x.shape)) ** 2).sum(0)
    transfer = _transfer(k, x.shape)
    # beyond the border, what the last image predicts
    observed = y if is_first else jnp.where(inside, y, jnp.fft.ifft2(jnp.fft.fft2(x) * transfer).real)
    top = data_weight * transfer.conj() * jnp.fft.fft2(observed) + jnp.fft.fft2(c)
    return jnp.fft.ifft2(top / (data_weight * jnp.abs(transfer) ** 2 + penalty)).real


def _taper(image: NDArray, kernel: NDArray, times: int = 3) -> NDArray:
    """Image whose borders fade into its blurred periodic continuation."""
    fades = []
    for axis in (1, 0):
        n = image.shape[1 - axis]
        z = np.fft.ifft(np.abs(np.fft.fft(kernel.sum(axis), n - 1)) ** 2).real
        z = np.append(z, z[0])
        fades.append(1 - z / z.max())
    alpha = np.outer(*fades)
    rim = [(n // 2, n // 2) for n in kernel.shape]
    for _ in range(times):
        blurred = scipy.signal.fftconvolve(np.pad(image, rim, "wrap"), kernel, "valid")
        image = alpha * image + (1 - alpha) * blurred
    return image.astype(np.float32)


def deconvolve(blurred: NDArray, kernel: NDArray, noise: float, folder: Path) -> NDArray[np.float32]:
    """Sharp image (h, w, c), each channel by itself.

    Args:
        blurred: (h, w, c) in [0, 1].
        kernel: of odd sides, with sum one.
        noise: standard deviation in [0, 1].
        folder: of the authors' repository.
    """
    rim = [(n // 2, n // 2) for n in kernel.shape]
    window = tuple(slice(n, size + n) for (n, _), size in zip(rim, blurred.shape[:2]))
    sigma = jnp.asarray(np.clip(255 * noise, *NOISES), jnp.float32)
    out = []
    for channel in np.moveaxis(blurred, -1, 0):
        y = _taper(np.pad(channel, rim, "edge"), kernel)
        inside = np.zeros(y.shape, bool)
        inside[window] = True
        x = y
        for t, weights in enumerate(load(folder)):
            x = _stage(weights, x, y, inside, kernel, sigma, t == 0)
        out.append(np.clip(np.asarray(x)[window], 0, 1))
    return np.stack(out, -1)
