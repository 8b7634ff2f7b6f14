"""Transparent pixels of videos and pictures: laid over one colour, at full size, before anything is scaled.

The colours under transparent pixels are whatever a program left there; without this they would be seen.
"""

from typing import Any

import av
import numpy
from numpy.typing import NDArray

Pixels = NDArray[numpy.uint8]
BACKGROUND = (128, 128, 128)
"""RGB under transparent pixels: a middle grey, on which neither dark nor light drawings vanish."""
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # FFmpeg's own decoders drop the transparency of both
_has_alpha: dict[str, bool] = {}


def composite(pixels: Pixels) -> Pixels:
    """RGBA ``(H, W, 4)`` over the background as RGB ``(H, W, 3)``, rounded to the nearest."""
    alpha = pixels[..., 3:].astype(numpy.uint16)
    under = numpy.array(BACKGROUND, numpy.uint16) * (255 - alpha)
    return ((pixels[..., :3] * alpha + under + 127) // 255).astype(numpy.uint8)


def has_alpha(frame: Any) -> bool:
    """Whether the pixel format of a decoded PyAV frame has transparency."""
    name = frame.format.name
    if name not in _has_alpha:
        _has_alpha[name] = name == "pal8" or any(part.is_alpha for part in frame.format.components)
    return _has_alpha[name]


def opaque(frame: Any) -> Any:
    """A PyAV frame with transparency as an RGB frame over the background, of the same size.

    ``VideoFrame.side_data`` and times stay behind: read them from ``frame``.
    """
    return av.VideoFrame.from_ndarray(composite(frame.to_ndarray(format="rgba")), format="rgb24")


def alpha_decoder(stream: Any) -> Any:
    """A decoder for a VP8 or VP9 stream whose file says that it has transparency; ``None`` for all others."""
    name = _ALPHA_DECODERS.get(stream.codec_context.name)
    marks = {key.lower(): value for key, value in stream.metadata.items()}
    if name is None or marks.get("alpha_mode") != "1" or name not in av.codecs_available:
        return None
    decoder = av.CodecContext.create(name, "r")
    decoder.extradata = stream.codec_context.extradata
    return decoder
