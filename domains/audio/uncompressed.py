"""Headers of uncompressed files, compared with the size of the file: WAV in all its forms, AIFF, AU, CAF, SPHERE.

The library behind soundfile trusts the announced size, and reads what is left of a file that was cut.
"""

from pathlib import Path
from typing import IO, Literal, NamedTuple

from domains.audio.parts import is_zero
from suite.errors import DataError

_W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_JOINED = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b"riff")
_KNOWN_TRAILERS = (b"LIST", b"id3 ", b"ID3 ", b"bext", b"iXML", b"cue ", b"smpl", b"inst", b"PEAK", b"JUNK", b"PAD ")
_CAF_TRAILERS = (b"info", b"free", b"peak", b"uuid", b"ovvw", b"mark", b"strg", b"midi", b"umid", b"inst")
_PCM_LIKE = (1, 3, 6, 7)  # format tags whose samples have a constant size: PCM, IEEE float, A-law, mu-law
_EXTENSIBLE = 0xFFFE
_UNKNOWN = 0xFFFFFFFF
Order = Literal["little", "big"]


class Header(NamedTuple):
    """Where the samples are, and how many bytes of them.

    ``fmt`` is the content of a WAV format chunk; empty in other formats. ``frames`` is -1 where the header has none.
    ``regular`` is whether the decoder finds the same by itself.
    """

    start: int
    length: int
    frames: int
    fmt: bytes
    order: Order
    regular: bool
    notes: tuple[str, ...]


class _Chunk(NamedTuple):
    name: bytes
    start: int
    length: int

    @property
    def stop(self) -> int:
        return self.start + self.length


def is_placeholder(length: int) -> bool:
    """Whether writers to a pipe leave this size in a header: 0, or nearly the most that 31 or 32 bits hold."""
    return length == 0 or 0x7FFF0000 <= length <= 0x80000000 or length >= 0xFFFF0000


def read_header(path: Path, file: IO[bytes], size: int) -> Header | None:
    """The header of an uncompressed file; ``None`` for other files.

    Raises:
        DataError: samples are missing, left over, or not where the header says.
    """
    file.seek(0)
    head = file.read(16)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return _read_wave(path, file, size, "big" if head[:4] == b"RIFX" else "little", wide=head[:4] == b"BW64")
    if head == _W64_RIFF:
        return _read_wave64(path, file, size)
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _read_aiff(path, file, size)
    if head[:4] == b".snd":
        start, length = (int.from_bytes(head[place : place + 4], "big") for place in (4, 8))
        return _plain(path, start, size - start if length == _UNKNOWN else length, size)
    if head[:4] == b"caff":
        return _read_caf(path, file, size)
    if head[:7] == b"NIST_1A":
        return _read_sphere(path, file, size)
    return None


def clean_wave_header(header: Header) -> bytes:
    """A header for a decoder in front of exactly these samples."""
    order, length = header.order, header.length
    fmt = b"fmt " + len(header.fmt).to_bytes(4, order) + header.fmt + b"\0" * (len(header.fmt) % 2)
    total = 4 + len(fmt) + 8 + length
    if total < 0xFFFFFFF0:
        name = b"RIFF" if order == "little" else b"RIFX"
        return name + total.to_bytes(4, order) + b"WAVE" + fmt + b"data" + length.to_bytes(4, order)
    sizes = b"".join(number.to_bytes(8, "little") for number in (total + 36, length, max(0, header.frames)))
    ds64 = b"ds64" + (28).to_bytes(4, "little") + sizes + bytes(4)
    return b"RF64\xff\xff\xff\xffWAVE" + ds64 + fmt + b"data\xff\xff\xff\xff"


def _read_wave(path: Path, file: IO[bytes], size: int, order: Order, *, wide: bool) -> Header:
    chunks, end, padded = _walk(file, 12, size, order)
    fmt = next((chunk for chunk in chunks if chunk.name == b"fmt "), None)
    data = next((chunk for chunk in chunks if chunk.name == b"data"), None)
    if data is None or fmt is None or fmt.start > data.start:
        raise DataError(f"{path}: a WAV file without a format chunk and samples after it; fetch it again")
    content = _bytes(file, fmt)
    long_sizes = next((_bytes(file, chunk) for chunk in chunks if chunk.name == b"ds64"), b"")
    length, regular, notes = data.length, padded and not wide, list[str]()
    if length == _UNKNOWN and len(long_sizes) >= 16:
        length = int.from_bytes(long_sizes[8:16], "little")
        regular = regular and not is_placeholder(length)
        if data.start + length <= size:
            data = data._replace(length=length)
            more, end, padded = _walk(file, data.stop + length % 2, size, order)
            chunks, regular = [*chunks[:-1], data, *more], regular and padded
    available = size - data.start
    streamed = is_placeholder(length) and length > available
    if length == 0 and available:
        more, end, _ = _walk(file, data.start, size, order)
        streamed = not more or not _is_explained(file, end, size)
        chunks = chunks if streamed else [*chunks, *more]
        regular = False
    if streamed:
        # The samples go on to the end of the file.
        return _wave(path, _Chunk(b"data", data.start, available), content, order, regular=False, notes=notes)
    if length > available:
        raise _cut(path, length - available)
    filled = [chunk for chunk in chunks if chunk.name == b"data" and chunk.length]
    if len(filled) > 1:
        raise DataError(f"{path}: {len(filled)} chunks of samples (data) in one WAV file: convert it to a plain one")
    if filled and filled[0] != data:
        data, regular = filled[0], False
        if data.stop > size:
            raise _cut(path, data.stop - size)
    notes += _check_rest(path, file, chunks, data=data, end=end, size=size)
    return _wave(path, data, content, order, regular=regular, notes=notes)


def _wave(path: Path, data: _Chunk, fmt: bytes, order: Order, *, regular: bool, notes: list[str]) -> Header:
    """Raises DataError for a format chunk without sense."""
    if len(fmt) < 16:
        raise DataError(f"{path}: its format chunk has {len(fmt)} bytes, at least 16 are needed; fetch it again")
    tag, channels, block = (int.from_bytes(fmt[place : place + 2], order) for place in (0, 2, 12))
    if tag == _EXTENSIBLE and len(fmt) >= 26:
        tag = int.from_bytes(fmt[24:26], order)
    rate = int.from_bytes(fmt[4:8], order)
    if not rate:
        raise DataError(f"{path}: its sample rate is 0 Hz: write it again")
    if not channels or not block:
        raise DataError(f"{path}: its format chunk announces {channels} channels in {block} bytes; fetch it again")
    rest = data.length % block
    if rest and tag in _PCM_LIKE:
        notes = [*notes, f"an incomplete last sample is left out (bytes: {rest})"]
        data = data._replace(length=data.length - rest)
    frames = data.length // block if tag in _PCM_LIKE else -1
    return Header(data.start, data.length, frames, fmt, order, regular and not rest, tuple(notes))


def _walk(file: IO[bytes], place: int, size: int, order: Order) -> tuple[list[_Chunk], int, bool]:
    """Chunks from ``place`` on, where they end, and whether each has an even size or is padded to one.

    It ends at bytes that are no chunk, and after a data chunk that announces nothing or more than there is.
    """
    chunks: list[_Chunk] = []
    padded, odd = True, False
    while size - place >= 8:
        chunk = _chunk_at(file, place, order)
        if odd and not _is_chunk(chunk, size) and _is_chunk(unpadded := _chunk_at(file, place - 1, order), size):
            chunk, padded = unpadded, False
        if not _is_chunk(chunk, size):
            break
        chunks.append(chunk)
        if chunk.name == b"data" and (not chunk.length or chunk.stop > size):
            return chunks, min(chunk.stop, size), padded
        odd = bool(chunk.length % 2)
        place = chunk.stop + odd
    return chunks, place, padded


def _chunk_at(file: IO[bytes], place: int, order: Order) -> _Chunk:
    if file.tell() != place:
        file.seek(place)
    head = file.read(8)
    return _Chunk(head[:4], place + 8, int.from_bytes(head[4:], order))


def _is_chunk(chunk: _Chunk, size: int) -> bool:
    name = chunk.name
    if len(name) < 4 or name[0] <= 0x20 or not all(0x20 <= byte < 0x7F for byte in name):
        return False
    return name == b"data" or chunk.stop <= size or name in _KNOWN_TRAILERS or name in _JOINED


def _bytes(file: IO[bytes], chunk: _Chunk) -> bytes:
    file.seek(chunk.start)
    return file.read(min(chunk.length, 2**16))


def _check_rest(path: Path, file: IO[bytes], chunks: list[_Chunk], *, data: _Chunk, end: int, size: int) -> list[str]:
    """Notes on what follows the samples.

    Raises:
        DataError: bytes that look like samples or like another file.
    """
    joined = [chunk for chunk in chunks if chunk.name in _JOINED]
    if joined:
        raise DataError(
            f"{path}: another file of {size - joined[0].start + 8} bytes is joined to the end of it: split them"
        )
    cut = chunks[-1].stop - size if chunks else 0
    if cut > 0:
        return [f"its last chunk, {chunks[-1].name.decode()}, lacks {cut} bytes (no samples)"]
    if _is_explained(file, end, size):
        return []
    file.seek(end)
    rest = file.read(size - end) if size - end <= 2**16 else b"\1"
    if is_zero(rest, 0, len(rest)):
        return [f"{len(rest)} zero bytes follow the samples that its header announces; they are left out"]
    raise DataError(
        f"{path}: {size - end} bytes are left over after the {data.length} bytes of samples that its header announces: "
        "the header is wrong; write the file again"
    )


def _is_explained(file: IO[bytes], end: int, size: int) -> bool:
    """Whether nothing but padding or a tag follows."""
    if size <= end:
        return True
    file.seek(end)
    head = file.read(8)
    return head[:3] == b"ID3" or head == b"APETAGEX" or (head[:3] == b"TAG" and size - end == 128)


def _read_wave64(path: Path, file: IO[bytes], size: int) -> Header:
    place, fmt = 40, b""
    while size - place >= 24:
        file.seek(place)
        head = file.read(24)
        length = int.from_bytes(head[16:], "little") - 24
        if head[:4] == b"fmt ":
            fmt = file.read(min(max(length, 0), 2**16))
        elif head[:4] == b"data":
            start = place + 24
            streamed = length in (-24, -25, 0) or length >= 2**62
            end = start + (size - start if streamed else length)
            if end > size:
                raise _cut(path, end - size)
            more = end + -end % 8
            if size - more >= 24:
                file.seek(more)
                if file.read(16)[4:8] not in (b"\xf3\xac\xd3\x11", b"\x91\xcf\x11\xa5"):  # GUIDs of further chunks
                    _refuse_rest(path, size - end, end - start)
            elif size - end > 8:
                _refuse_rest(path, size - end, end - start)
            return _wave(path, _Chunk(b"data", start, end - start), fmt, "little", regular=not streamed, notes=[])
        if length < 0:
            break
        place += 24 + length + -length % 8
    raise DataError(f"{path}: a Wave64 file without samples; fetch it again")


def _read_aiff(path: Path, file: IO[bytes], size: int) -> Header:
    chunks, end, _ = _walk(file, 12, size, "big")
    sound = next((chunk for chunk in chunks if chunk.name == b"SSND"), None)
    if sound is None:  # _walk stops at one that is longer than the file
        file.seek(end)
        sound = _chunk_at(file, end, "big")
        if sound.name != b"SSND":
            raise DataError(f"{path}: an AIFF file without samples (SSND); fetch it again")
        raise _cut(path, sound.stop - size)
    common = next((_bytes(file, chunk) for chunk in chunks if chunk.name == b"COMM"), b"")
    offset = int.from_bytes(_bytes(file, sound)[:4], "big")
    notes = _check_rest(path, file, chunks, data=sound, end=end, size=size)
    frames = int.from_bytes(common[2:6], "big") if len(common) >= 6 else -1
    start = sound.start + 8 + offset
    return Header(start, sound.stop - start, frames, b"", "big", True, tuple(notes))


def _read_caf(path: Path, file: IO[bytes], size: int) -> Header:
    place = 8
    while size - place >= 12:
        file.seek(place)
        head = file.read(12)
        length = int.from_bytes(head[4:], "big", signed=True)
        if head[:4] == b"data":
            start = place + 16  # an edit count comes first
            end = size if length == -1 else place + 12 + length
            if end > size:
                raise _cut(path, end - size)
            file.seek(end)
            if size - end > 1 and file.read(4) not in _CAF_TRAILERS:
                _refuse_rest(path, size - end, end - start)
            return Header(start, end - start, -1, b"", "big", True, ())
        if length < 0:
            break
        place += 12 + length
    raise DataError(f"{path}: a CAF file without samples; fetch it again")


def _read_sphere(path: Path, file: IO[bytes], size: int) -> Header:
    file.seek(0)
    lines = file.read(1024).decode("latin-1").split("\n")
    fields = {words[0]: words[2] for words in (line.split() for line in lines[2:]) if len(words) == 3}
    try:
        start = int(lines[1])
        names = ("sample_count", "channel_count", "sample_n_bytes")
        frames, channels, width = (int(fields.get(name, "1")) for name in names)
    except (ValueError, IndexError):
        raise DataError(f"{path}: its SPHERE header cannot be read; fetch it again") from None
    return _plain(path, start, frames * channels * width, size)


def _plain(path: Path, start: int, length: int, size: int) -> Header:
    """A header with nothing after the samples."""
    if start + length > size:
        raise _cut(path, start + length - size)
    if size - start - length > 1:
        _refuse_rest(path, size - start - length, length)
    return Header(start, length, -1, b"", "big", True, ())


def _cut(path: Path, missing: int) -> DataError:
    return DataError(f"{path}: {missing} bytes shorter than its header says: it is cut short; fetch it again")


def _refuse_rest(path: Path, rest: int, length: int) -> None:
    raise DataError(
        f"{path}: {rest} bytes are left over after the {length} bytes of samples that its header announces: the header "
        "is wrong; write the file again"
    )
