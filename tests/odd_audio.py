"""Makers of odd audio files, and full decodes by other code than ours: PyAV, and numpy on the bytes of samples."""

import io
import struct
from pathlib import Path
from typing import Any

import av
import numpy
import soundfile
from numpy.typing import NDArray

CASES = Path(__file__).parent / "odd_inputs"
RATE = 16_000
SIZE = 20_000

Floats = NDArray[numpy.float32]


def wave(*, channels: int = 1, size: int = SIZE) -> NDArray[numpy.float64]:
    """A tone with noise, quantised to 16 bits; the second channel is another tone."""
    time = numpy.arange(size) / RATE
    first = 0.4 * numpy.sin(2 * numpy.pi * 330 * time) + 0.01 * numpy.random.default_rng(0).normal(size=size)
    both = numpy.stack([first, 0.3 * numpy.sin(2 * numpy.pi * 221 * time)], axis=1)
    return numpy.round(32768 * both[:, :channels].squeeze()) / 32768


def pcm(samples: NDArray[Any] | None = None, *, order: str = "<") -> bytes:
    """Samples as bytes of 16-bit integers."""
    return numpy.round(32768 * (wave() if samples is None else samples)).astype(f"{order}i2").tobytes()


def wave_header(
    size: int, *, data: int | None = None, riff: int | None = None, before: bytes = b"", rate: int = RATE,
    channels: int = 1, order: str = "<",
) -> bytes:  # fmt: skip
    """The header of a 16-bit WAV file, with sizes as they are or as given, and chunks ``before`` the samples."""
    block = 2 * channels
    fmt = struct.pack(f"{order}HHIIHH", 1, channels, rate, rate * block & 0xFFFFFFFF, block, 16)
    body = b"WAVEfmt " + struct.pack(f"{order}I", 16) + fmt + before
    whole = len(body) + 8 + size if riff is None else riff
    sizes = struct.pack(f"{order}II", whole, size if data is None else data)
    return (b"RIFF" if order == "<" else b"RIFX") + sizes[:4] + body + b"data" + sizes[4:]


def chunk(name: bytes, content: bytes, *, size: int | None = None) -> bytes:
    """A RIFF chunk, without padding."""
    return name + struct.pack("<I", len(content) if size is None else size) + content


def encode(format: str, *, subtype: str | None = None, rate: int = RATE, samples: NDArray[Any] | None = None) -> bytes:
    """A file by libsndfile."""
    file = io.BytesIO()
    soundfile.write(file, wave() if samples is None else samples, rate, format=format, subtype=subtype)
    return file.getvalue()


def decode_av(content: bytes | Path) -> Floats:
    """All samples ``(n, channels)`` by FFmpeg."""
    found = []
    with av.open(io.BytesIO(content) if isinstance(content, bytes) else str(content), mode="r") as container:
        for frame in container.decode(audio=0):
            values = frame.to_ndarray()
            if not frame.format.is_planar:
                values = values.reshape(-1, len(frame.layout.channels)).T
            if values.dtype.kind == "u":  # 8 bits
                values = (values.astype(numpy.float32) - 128) / 128
            elif values.dtype.kind == "i":
                values = values / float(2 ** (8 * values.itemsize - 1))
            found.append(values.T.astype(numpy.float32))
    return numpy.concatenate(found)


ID3 = b"ID3\x04\0\0\0\0\x01\0" + bytes(128)
ID3V1 = b"TAG" + bytes(125)
APE = b"APETAGEX" + struct.pack("<IIII", 2000, 32, 0, 0) + bytes(8)


def with_total(flac: bytes, total: int) -> bytes:
    """A FLAC file whose header announces ``total`` samples."""
    packed = int.from_bytes(flac[18:26], "big") >> 36 << 36 | total
    return flac[:18] + packed.to_bytes(8, "big") + flac[26:]


def with_frames(mp3: bytes, count: int, *, add: bool = False) -> bytes:
    """An MP3 file whose Xing frame announces ``count`` frames, or as many more."""
    place = max(mp3.find(b"Xing"), mp3.find(b"Info")) + 8
    old = int.from_bytes(mp3[place : place + 4], "big")
    return mp3[:place] + (old + count if add else count).to_bytes(4, "big") + mp3[place + 4 :]


def pages(ogg: bytes) -> list[bytes]:
    """The pages of an Ogg file."""
    starts = [place for place in range(len(ogg)) if ogg[place : place + 5] == b"OggS\0"]
    return [ogg[start:stop] for start, stop in zip(starts, [*starts[1:], len(ogg)], strict=True)]
