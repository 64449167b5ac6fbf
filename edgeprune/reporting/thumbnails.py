"""Small pictures for a page that loads nothing: PNG in base64."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

LARGEST_SIDE = 96
"""Pixels. Larger pictures are shown with every second, third... pixel: a page of them stays small."""

_GREY, _COLOURS = 1, 3


def thumbnail(pixels: np.ndarray) -> str:
    """A picture as PNG in base64; the same pixels give the same text.

    Args:
        pixels: [height, width, channels], uint8; one channel is grey, three are red, green and blue, and a fourth is
            left out.
    """
    import numpy as np
    from matplotlib.image import imsave

    step = -(-max(pixels.shape[:2]) // LARGEST_SIDE)
    small = pixels[::step, ::step, :_COLOURS]
    coloured = np.repeat(small, _COLOURS, axis=2) if small.shape[2] == _GREY else small
    stream = io.BytesIO()
    imsave(stream, np.ascontiguousarray(coloured), format="png", metadata={"Software": "edgeprune"})
    return base64.b64encode(stream.getvalue()).decode("ascii")
