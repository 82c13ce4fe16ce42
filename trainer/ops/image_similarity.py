"""How alike two pictures are. Arrays f[height, width, channels] in 0 to 1, of one shape."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy import ndarray
    from PIL.Image import Image

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def as_array(image: Image, size: tuple[int, int] | None = None) -> ndarray:
    """RGB over white, resized to (width, height) by bicubic stretching."""
    import numpy as np
    from PIL import Image

    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    if size is not None and image.size != size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.float64) / 255


def ssim(x: Any, y: Any, *, windowed: bool = True) -> float:
    """Structural similarity in [-1, 1]: an 11 x 11 Gaussian window of sigma 1.5, places where it
    fits, population variances, mean over places and channels. Without windows, or where a side is
    under 11: one window, the whole picture. Source: Wang et al. 2004; scikit-image's default
    (7 x 7, uniform) differs in the third decimal."""
    import numpy as np

    x, y = _planes(x), _planes(y)
    if not windowed or min(x.shape[:2]) < _WINDOW:

        def mean(a: ndarray) -> ndarray:
            return a.mean((0, 1), keepdims=True)
    else:
        places = np.arange(_WINDOW) - _WINDOW // 2
        weight = np.exp(-(places**2) / (2 * _SIGMA**2))
        weight /= weight.sum()

        def mean(a: ndarray) -> ndarray:
            for axis in (0, 1):
                views = np.lib.stride_tricks.sliding_window_view(a, _WINDOW, axis=axis)
                a = views @ weight
            return a

    mx, my = mean(x), mean(y)
    vx, vy = mean(x * x) - mx * mx, mean(y * y) - my * my
    covariance = mean(x * y) - mx * my
    top = (2 * mx * my + _C1) * (2 * covariance + _C2)
    return float((top / ((mx * mx + my * my + _C1) * (vx + vy + _C2))).mean())


def ssim_of(given: Any, right: Any, *, against_white: bool) -> float:
    """max(0, s), s the SSIM, or (s - s_white) / (1 - s_white) with that of a white picture: most of
    a page is white."""
    import numpy as np

    value = ssim(given, right)
    if against_white:
        white = ssim(np.ones_like(right), right)
        value = (value - white) / (1 - white) if white < 1 else value
    return max(0.0, value)


def mse(x: Any, y: Any) -> float:
    """Mean squared difference."""
    return float(((_planes(x) - _planes(y)) ** 2).mean())


def psnr(x: Any, y: Any, most: float = 50.0) -> float:
    """-10 log10(mse) in dB, at most `most`."""
    error = mse(x, y)
    return min(most, -10 * math.log10(error)) if error else most


def is_blank(x: Any) -> bool:
    """All pixels within one grey level of each other, in every channel."""
    x = _planes(x)
    return bool((x.max((0, 1)) - x.min((0, 1))).max() <= 1 / 255 + 1e-9)


def _planes(x: Any) -> ndarray:
    import numpy as np

    x = np.asarray(x, dtype=np.float64)
    return x[:, :, None] if x.ndim == 2 else x
