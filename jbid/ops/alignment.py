"""Alignment of an observed image with an enlarged latent image."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jbid.ops.conv import fast_shape
from jbid.ops.ssim import gaussian_average

_SIDE = 11  # pixels, of a window
WINDOWS = 24  # largest number of windows in each direction


def window_similarity(image: Float[Array, "H W c"], observed: Float[Array, "h w c"]) -> Float[Array, "kh kw"]:
    """SSIM of the observed image with the window of the latent image at each offset; kh = H - h + 1, kw = W - w + 1.

    Entry (i, j) is the mean SSIM (Gaussian 11x11, C1 = 0.01^2, C2 = 0.03^2; Wang et al. 2004, Eq. 13) of image[i : i +
    h, j : j + w] and observed, both averaged over channels, at up to 24 x 24 evenly spaced windows. Means and variances
    of the latent image serve all offsets. The covariance of one window with all offsets is a correlation, by FFT.

    Args:
        image: latent image.
        observed: at least 11x11 pixels.
    """
    # covariances do not depend on the level, and rounding errors are smallest around zero
    level = observed.mean()
    x, y = image.mean(-1) - level, observed.mean(-1) - level
    h, w = y.shape
    kh, kw = x.shape[0] - h + 1, x.shape[1] - w + 1
    average = partial(gaussian_average, same=False)
    mx, my = average(x), average(y)
    vx, vy = average(x * x) - mx * mx, average(y * y) - my * my
    rows, columns = (
        jnp.asarray(np.unique(np.linspace(0, n - _SIDE, min(WINDOWS, n - _SIDE + 1)).astype(int))) for n in (h, w)
    )
    # taps of the average, from its response to an impulse
    impulse = jnp.zeros((2 * _SIDE - 1, 2 * _SIDE - 1)).at[_SIDE - 1, _SIDE - 1].set(1.0)
    weights = average(impulse)
    reach = (kh + _SIDE - 1, kw + _SIDE - 1)
    fast = fast_shape(*reach)

    def at_window(row, column):
        patch = weights * jax.lax.dynamic_slice(y, (row, column), (_SIDE, _SIDE))
        around = jax.lax.dynamic_slice(x, (row, column), reach)
        spectrum = jnp.fft.rfft2(around, fast) * jnp.conj(jnp.fft.rfft2(patch, fast))
        product = jnp.fft.irfft2(spectrum, fast)[:kh, :kw]
        m, v = (jax.lax.dynamic_slice(a, (row, column), (kh, kw)) for a in (mx, vx))
        n, u = my[row, column], vy[row, column]
        c1, c2 = 0.01**2, 0.03**2
        luminance = (2 * (m + level) * (n + level) + c1) / ((m + level) ** 2 + (n + level) ** 2 + c1)
        return luminance * (2 * (product - m * n) + c2) / (v + u + c2)

    def along_row(total, row):
        return total + jax.vmap(at_window, (None, 0))(row, columns).sum(0), None

    total, _ = jax.lax.scan(along_row, jnp.zeros((kh, kw)), rows)
    return total / (len(rows) * len(columns))


def best_window(image: Float[Array, "H W c"], observed: Float[Array, "h w c"]) -> Int[Array, " 2"]:
    """Offset (down, right) of the window of the latent image that is most similar to the observed one.

    argmax of `window_similarity` over all offsets (Zhuang et al., section 3.1.6).
    """
    similarity = window_similarity(image, observed)
    return jnp.stack(jnp.unravel_index(jnp.argmax(similarity), similarity.shape))
