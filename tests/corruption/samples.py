"""Small valid files of every format that is read, made from fixed seeds. No file is larger than 40 kB."""

import csv
import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import av
import numpy
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
import torch
from numpy.typing import NDArray
from PIL import Image

from suite import checkpoint
from suite.vocabulary import SPECIALS, Tokenizer
from tests.corruption.containers import with_serial

RATE = 16_000
SIZE = 24  # height and width of pictures and videos
FRAMES = 12
COLUMNS = ("text", "label")
TOKENIZER = Tokenizer(
    [*SPECIALS, *(f" {word}" for word in ("owl", "cat", "dog", "new", "york", "paris"))], level="word"
)
_WORDS = ("owl", "cat", "dog", "fish", "ärger", "naïve", 'say "no"', "one, two", "x")


def audio(number: int) -> NDArray[numpy.float32]:
    """Half a second of two tones and a little noise, below full scale."""
    random = numpy.random.default_rng(number)
    time = numpy.arange(RATE // 2) / RATE
    tones = 0.3 * numpy.sin(2 * numpy.pi * (220 + 40 * number) * time) + 0.2 * numpy.sin(2 * numpy.pi * 1340 * time)
    return (tones + 0.02 * random.standard_normal(len(time))).astype(numpy.float32)


def _sound(
    format: str, subtype: str | None = None, *, channels: int = 1, seconds: float = 0.5
) -> Callable[[int], bytes]:
    def make(number: int) -> bytes:
        samples = audio(number)[: int(RATE * seconds)]
        both = samples if channels == 1 else numpy.stack([samples, 0.5 * samples[::-1]], axis=1)
        file = io.BytesIO()
        soundfile.write(file, both, RATE, format=format, subtype=subtype)
        data = file.getvalue()
        return with_serial(data, number) if format == "OGG" else data  # else it is drawn from the clock

    return make


def picture(number: int, *, channels: int = 3) -> NDArray[numpy.uint8]:
    """Blocks of colours with noise, in which a turn, a mirror or a shift by a row can be seen."""
    random = numpy.random.default_rng(number)
    blocks = random.integers(0, 200, (SIZE // 4, SIZE // 4, channels)).repeat(4, axis=0).repeat(4, axis=1)
    return (blocks + random.integers(0, 16, blocks.shape)).astype(numpy.uint8)


def _picture(format: str, *, mode: str = "RGB", **options: Any) -> Callable[[int], bytes]:
    def make(number: int) -> bytes:
        image = Image.fromarray(picture(number, channels=4 if mode == "RGBA" else 3)).convert(mode)
        file = io.BytesIO()
        image.save(file, format=format, **options)
        return file.getvalue()

    return make


def _turned_jpeg(number: int) -> bytes:
    """With an EXIF block that says to turn it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return _picture("JPEG", quality=90, exif=exif)(number)


def _video(container: str, codec: str, pixels: str, **options: str) -> Callable[[int], bytes]:
    def make(number: int) -> bytes:
        file = io.BytesIO()
        with av.open(file, "w", format=container, options={"fflags": "+bitexact"}) as out:
            stream: Any = out.add_stream(codec, rate=10, options=options)
            stream.width = stream.height = SIZE
            stream.pix_fmt = pixels
            stream.codec_context.thread_count = 1
            stream.codec_context.gop_size = 4
            for place in range(FRAMES):
                frame = av.VideoFrame.from_ndarray(numpy.roll(picture(number), 2 * place, axis=1), format="rgb24")
                frame.pts, frame.time_base = place, Fraction(1, 10)
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        return file.getvalue()

    return make


def _rows(number: int, count: int = 30) -> list[tuple[str, str]]:
    random = numpy.random.default_rng(number)
    texts = [" ".join(random.choice(_WORDS, size=random.integers(2, 9))) for _ in range(count)]
    return [(f"{place} {text}", ("good", "bad")[place % 2]) for place, text in enumerate(texts)]


def _csv(number: int) -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n").writerows([("text", "label"), *_rows(number), ("two\nlines", "good")])
    return file.getvalue().encode()


def _tsv(number: int) -> bytes:
    return "".join(f"{text}\t{label}\n" for text, label in [("text", "label"), *_rows(number)]).encode()


def _jsonl(number: int) -> bytes:
    records = [{"text": text, "label": label, "score": len(text) / 7} for text, label in _rows(number)]
    return "".join(json.dumps(record, ensure_ascii=number % 2 == 0) + "\n" for record in records).encode()


def _lines(number: int) -> bytes:
    return "".join(f"{text}\n" for text, _ in _rows(number)).encode()


def _parquet(**options: Any) -> Callable[[int], bytes]:
    def make(number: int) -> bytes:
        texts, labels = zip(*_rows(number, 60), strict=True)
        table = pa.table({"text": texts, "label": labels, "score": [len(text) / 7 for text in texts]})
        file = io.BytesIO()
        pq.write_table(table, file, row_group_size=20, **options)
        return file.getvalue()

    return make


def _packed(make: Callable[[int], bytes]) -> Callable[[int], bytes]:
    return lambda number: gzip.compress(make(number), mtime=0)


def _tar(mode: str) -> Callable[[int], bytes]:
    def make(number: int) -> bytes:
        file = io.BytesIO()
        opened: Any = tarfile.open(fileobj=file, mode=f"w{mode}")  # type: ignore[call-overload]  # noqa: SIM115
        with opened as archive:
            for place in range(6):
                data = _picture("PNG")(10 * number + place)
                split, label = ("train", "test")[place % 2], "ab"[place // 3]
                member = tarfile.TarInfo(f"{split}/{label}/{place}.png")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        data = file.getvalue()
        # Python writes the time into the header of a gzip file.
        return data[:4] + bytes(4) + data[8:] if mode == ":gz" else data

    return make


def _zip(**members: Callable[[int], bytes]) -> Callable[[int], bytes]:
    def make(number: int) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for place, (name, make_member) in enumerate(members.items()):
                archive.writestr(zipfile.ZipInfo(name.replace("_", "/")), make_member(10 * number + place))
        return file.getvalue()

    return make


def _glove(number: int) -> bytes:
    random = numpy.random.default_rng(number)
    words = ["owl", "cat", "dog", "new york", "paris", "the", "of", ","]
    return "".join(f"{word} {' '.join(f'{x:.4f}' for x in random.normal(size=8))}\n" for word in words).encode()


def checkpoint_content(number: int) -> dict[str, Any]:
    random = torch.Generator().manual_seed(number)
    state = {name: torch.randn(size, generator=random) for name, size in (("a", (16, 12)), ("b", (40,)))}
    record = checkpoint.make_record(settings={"domain": "toy", "number": number}, assets={"names": ["x"]})
    return {"state_dict": state, "global_step": 7, checkpoint.RECORD_KEY: record}


def write_checkpoint(number: int, folder: Path) -> tuple[bytes, bytes]:
    """A checkpoint, and the file with its digest."""
    path = folder / f"sample-{number}.ckpt"
    checkpoint.write(checkpoint_content(number), path)
    return path.read_bytes(), checkpoint.digest_path(path).read_bytes()


MAKERS: dict[str, Callable[[int], bytes]] = {
    "wav": _sound("WAV", "PCM_16"),
    "wav-float": _sound("WAV", "FLOAT", channels=2, seconds=0.2),
    "flac": _sound("FLAC", "PCM_16"),
    "ogg": _sound("OGG", "VORBIS"),
    "mp3": _sound("MP3"),
    "png": _picture("PNG"),
    "png-alpha": _picture("PNG", mode="RGBA"),
    "jpeg": _turned_jpeg,
    "gif": _picture("GIF", mode="P"),
    "webp": _picture("WEBP", lossless=True),
    "webp-lossy": _picture("WEBP", quality=80),
    "mp4": _video("mp4", "libx264", "yuv420p", preset="ultrafast", crf="5", bf="2"),
    "mkv": _video("matroska", "libx264", "yuv420p", preset="ultrafast", crf="5"),
    "avi": _video("avi", "mpeg4", "yuv420p", qscale="3"),
    "csv": _csv,
    "tsv": _tsv,
    "jsonl": _jsonl,
    "txt": _lines,
    "parquet": _parquet(),
    "parquet-checked": _parquet(write_page_checksum=True, compression="none", use_dictionary=False),
    "csv.gz": _packed(_csv),
    "txt.gz": _packed(_lines),
    "tar": _tar(""),
    "tar.gz": _tar(":gz"),
    "zip-as-csv": _zip(data=_csv),
    "pictures.zip": _zip(**{f"{split}_{label}_{place}.png": _picture("PNG")
                            for place, (split, label) in enumerate(product(("train", "test"), "ab"))}),
    "glove": _glove,
}  # fmt: skip
