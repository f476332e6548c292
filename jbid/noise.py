"""Noise-level estimation."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

# high-pass filter of the Daubechies-2 wavelet
_HIGH = (-0.48296291314469025, 0.8365163037378079, -0.22414386804185735, -0.12940952255092145)


def noise_level(image: Float[Array, "h w c"]) -> Float[Array, ""]:
    """Standard deviation of white Gaussian noise, in the image's units, averaged over the channels.

    sigma = median |HH| / 0.6745 over the finest diagonal wavelet coefficients HH that are not zero (Donoho and
    Johnstone 1994, as `skimage.restoration.estimate_sigma`). A blurred image has next to no detail of its own at that
    scale, which makes the estimate good there. 0 for an image without any detail.
    """

    def high(x, axis):
        x = jnp.moveaxis(x, axis, 0)
        n = (x.shape[0] - 4) // 2 * 2 + 1
        return jnp.moveaxis(sum(f * x[i : i + n : 2] for i, f in enumerate(_HIGH)), 0, axis)

    if image.shape[0] < 8 or image.shape[1] < 8:
        return jnp.zeros(())
    detail = jnp.abs(high(high(image, 0), 1))
    median = jnp.nanmedian(jnp.where(detail > 0, detail, jnp.nan), axis=(0, 1))
    return jnp.nan_to_num(median).mean() / 0.6745
