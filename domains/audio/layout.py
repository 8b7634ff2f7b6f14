"""What a file holds, by its own headers and its size, checked against what the decoder finds."""

import difflib
import mmap
import os
import struct
from pathlib import Path

import av
import soundfile

from domains.audio.flac import read_flac
from domains.audio.mpeg import first_frame, read_mpeg
from domains.audio.ogg import read_ogg
from domains.audio.parts import Kind, Layout, Part, open_view, shown_list, skip_tags
from domains.audio.uncompressed import Header, clean_wave_header, read_header
from suite.errors import DataError

ENDINGS = (".wav", ".flac", ".ogg", ".mp3")
_WIDTHS = {
    "PCM_S8": 1, "PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8, "ULAW": 1, "ALAW": 1,
}  # fmt: skip
_BLOCKS = ("IMA_ADPCM", "MS_ADPCM", "GSM610", "G721_32", "ALAC_16", "ALAC_20", "ALAC_24", "ALAC_32")
_FASTEST = 10_000_000  # hertz, beyond any converter
_MOST = 2**40  # samples
_DELAY = 2 * 4095 + 1105  # samples that an MP3 encoder may announce as delay and padding
DECODER_ERRORS = (soundfile.SoundFileError, av.FFmpegError, OSError, RuntimeError)


def look_at(path: Path) -> Layout:
    """The layout of a file.

    Raises:
        DataError: a file that is missing, empty, no audio, damaged, or of another size than its header says.
    """
    try:
        return _look_at(path)
    except OSError as error:  # no right to, a name that is too long, gone a moment ago
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


def _look_at(path: Path) -> Layout:
    if not os.path.isfile(path):  # and not path.is_file(), which raises for a name that is too long
        raise DataError(_missing(path))
    size = os.path.getsize(path)
    if size == 0:
        raise DataError(f"{path}: the file is empty")
    with path.open("rb") as file:
        header = read_header(path, file, size)
        if header is not None:
            layout = _plain_pcm(header) or _uncompressed(path, header)
        else:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                layout = _compressed(path, data, size)
    if layout.frames < 1:
        raise DataError(f"{path}: no samples in it")
    if not 0 < layout.rate <= _FASTEST:
        raise DataError(f"{path}: its sample rate must be from 1 to {_FASTEST:,} Hz, got {layout.rate}: write it again")
    return layout


def _missing(path: Path) -> str:
    if os.path.islink(path):
        return f"{path}: a broken link to {os.readlink(path)}"
    if os.path.isdir(path):
        return f"{path}: a folder, not a file"
    near = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.glob("*")], n=1)
    return f"{path}: no such file" + (f"; near it is {near[0]}" if near else "")


def _compressed(path: Path, data: mmap.mmap, size: int) -> Layout:
    start = skip_tags(data, 0, size)
    if start and data[start : start + 4] in (b"RIFF", b"RIFX", b"RF64"):
        with open_view(path, Part(b"", start, size, -1)) as file:
            header = read_header(path, file, size - start)
        if header is not None and header.fmt:
            return _uncompressed(path, header._replace(start=header.start + start, regular=False))
    if data[start : start + 4] == b"fLaC":
        layout = read_flac(path, data, start=start)
        for part in layout.parts:
            _check_same(path, part, layout)
        return layout
    if data[start : start + 4] == b"OggS":
        parts, announced, notes = read_ogg(path, data, start=start)
        found = [_open(path, part) for part in parts]
        kinds = {(each.samplerate, each.channels) for each in found}
        if len(kinds) > 1:
            raise DataError(
                f"{path}: {len(parts)} streams are joined in it, at {shown_list(each.samplerate for each in found)} Hz "
                f"with {shown_list(each.channels for each in found)} channels: split them"
            )
        if any(not 0 <= each.frames < _MOST for each in found):
            raise DataError(f"{path}: its stream does not say how long it is: convert it to flac or wav")
        counted = tuple(part._replace(frames=each.frames) for part, each in zip(parts, found, strict=True))
        for number, part in zip(announced, counted, strict=True):
            if number is not None and number > part.frames:
                notes.append(
                    f"{part.frames:,} samples are there, and its last page says {number:,}: some may be missing"
                )
        return Layout(found[0].samplerate, found[0].channels, "lossy", False, False, counted, tuple(notes))
    first = first_frame(data, start)
    if first is None:
        raise DataError(f"{path}: not audio that can be read; allowed: {shown_endings()}")
    layout = read_mpeg(path, data, start=start, first=first)
    return layout._replace(parts=tuple(_without_delay(path, part, layout) for part in layout.parts))


def _without_delay(path: Path, part: Part, layout: Layout) -> Part:
    """An MP3 part with the number of samples that the decoder leaves after the delays that it announces."""
    if part.decoder != "sndfile":
        return part
    found = _check_same(path, part._replace(frames=-1), layout)
    if not part.frames - _DELAY <= found <= part.frames:
        raise DataError(f"{path}: {part.frames} samples by its frames, {found} by its header: convert it again")
    return part._replace(frames=found)


def _check_same(path: Path, part: Part, layout: Layout) -> int:
    """Refuse a part of which the decoder finds something else; the samples that it finds."""
    found = _open(path, part)
    wanted = (layout.rate, layout.channels, part.frames)
    seen = (found.samplerate, found.channels, found.frames if part.frames >= 0 else -1)
    if seen != wanted:
        raise DataError(
            f"{path}: {part.frames} samples at {layout.rate} Hz by its header and size, but {found.frames} at "
            f"{found.samplerate} Hz by the decoder: convert it again"
        )
    return int(found.frames)


def _plain_pcm(header: Header) -> Layout | None:
    """The layout of the most usual files by their header alone, as sets may have many of them."""
    if not header.fmt or not header.regular or header.order != "little":
        return None
    tag, channels, rate, _, block, bits = struct.unpack("<HHIIHH", header.fmt[:16])
    if tag != 1 or bits not in (8, 16, 24, 32) or block != channels * bits // 8:
        return None
    return Layout(rate, channels, "integer", True, True, (Part(b"", 0, -1, header.frames),), header.notes)


def _uncompressed(path: Path, header: Header) -> Layout:
    if header.length == 0:
        raise DataError(f"{path}: no samples in it")
    part = Part(b"", 0, -1, -1)
    if header.fmt and not header.regular:
        part = Part(clean_wave_header(header), header.start, header.start + header.length, -1)
    found = _open(path, part)
    width = _WIDTHS.get(found.subtype)
    if width is None and found.subtype not in _BLOCKS:
        raise DataError(f"{path}: samples stored as {found.subtype} are not read: convert it to plain wav or flac")
    by_size = None if width is None else header.length // (width * found.channels)
    wanted = by_size if header.frames < 0 else header.frames
    if wanted is not None and not found.frames == wanted == (by_size or wanted):
        if header.fmt and not part.prefix and header.frames == by_size:
            return _uncompressed(path, header._replace(regular=False))
        raise DataError(
            f"{path}: {wanted} samples by its header, {by_size} by its size, {found.frames} by the decoder: convert it "
            "again"
        )
    kind: Kind = "float" if found.subtype in ("FLOAT", "DOUBLE") else "integer"
    seeks = width is not None
    part = part._replace(frames=found.frames)
    return Layout(found.samplerate, found.channels, kind, seeks, seeks and kind == "integer", (part,), header.notes)


def _open(path: Path, part: Part) -> soundfile.SoundFile:
    """What the decoder says of a part, closed again.

    Raises:
        DataError: it is no audio to it.
    """
    try:
        with open_sound(path, part) as file:
            return file
    except DECODER_ERRORS as error:
        reason = reason_of(error)
        raise DataError(f"{path}: not audio that can be read ({reason}); allowed: {shown_endings()}") from None


def open_sound(path: Path, part: Part) -> soundfile.SoundFile:
    """A part, to be read by the library behind soundfile.

    Raises:
        SoundFileError, OSError: it cannot be.
    """
    if part.stop < 0:
        return soundfile.SoundFile(path)
    return soundfile.SoundFile(open_view(path, part))


def reason_of(error: Exception) -> str:
    """The reason of a decoder's error in one line."""
    return " ".join(str(getattr(error, "error_string", error)).split())


def shown_endings() -> str:
    """The formats in words."""
    return ", ".join(ending.removeprefix(".") for ending in ENDINGS)
