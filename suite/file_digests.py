"""Digests of the contents of files, remembered in the cache folder so that a file is hashed once.

A line for each file: a key of its path and state (``suite.cache.file_state``), and the digest. Members of an archive
have the archive's state and their own name.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from suite.cache import cache_folder, file_state
from suite.console import notice
from suite.errors import DataError, SuiteError

SIZE = 16
"""Bytes of a digest."""
_FORMAT = 1
_THREADS = 4  # hashlib releases Python's lock
_LARGE = 2**30  # bytes that take seconds to read
_FRESH = 2.0  # seconds: a file that was changed a moment ago may change again without another time of change


def file_digests(paths: Sequence[Path]) -> list[bytes]:
    """The BLAKE2b digest of the content of each file, in order.

    Raises:
        DataError: a file that cannot be read.
    """
    return remembered([(path, "") for path in paths], lambda left: _hash_files(paths, left))


def remembered(
    places: Sequence[tuple[Path, str]], compute: Callable[[list[int]], Iterable[tuple[int, bytes]]]
) -> list[bytes]:
    """A digest for each of ``places``, from the cache or by ``compute``.

    Of several processes the first computes while the others wait.

    Args:
        places: a file each, with the name of a member if it is an archive.
        compute: gives the digest of each of the indices that it is handed.

    Raises:
        DataError: a file that is missing.
    """
    keys = _keys(places)
    known = _read()
    left = [index for index, key in enumerate(keys) if key not in known]
    if left:
        with _locked():
            known |= _read()  # another process may have been here meanwhile
            left = [index for index in left if keys[index] not in known]
            found = dict(compute(left)) if left else {}
            _remember(_lasting(places, keys, found))
        known |= {keys[index]: digest for index, digest in found.items()}
    return [known[key] for key in keys]


def digest_of(content: bytes) -> bytes:
    """The digest of a content in memory, as ``file_digests`` has it."""
    return hashlib.blake2b(content, digest_size=SIZE).digest()


def _hash_files(paths: Sequence[Path], left: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    total = sum(paths[index].stat().st_size for index in left)
    if total > _LARGE:
        notice(f"data: hashing {len(left):,} files once ({total / 2**30:,.1f} GiB), to recognise them later")
    with ThreadPoolExecutor(_THREADS) as pool:
        yield from zip(left, pool.map(_hash_file, [paths[index] for index in left]), strict=True)


def _hash_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=SIZE)).digest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def _keys(places: Sequence[tuple[Path, str]]) -> list[str]:
    states: dict[Path, list[int]] = {}
    keys = []
    for path, member in places:
        if path not in states:
            try:
                states[path] = file_state(path)
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror})") from None
        text = json.dumps([_FORMAT, os.path.abspath(path), member, *states[path]])
        keys.append(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=SIZE).hexdigest())
    return keys


def _lasting(places: Sequence[tuple[Path, str]], keys: Sequence[str], found: dict[int, bytes]) -> dict[str, bytes]:
    """What is worth remembering: digests of files that did not change while they were read, nor just before."""
    latest = time.time() - _FRESH
    old = {path for path in {places[index][0] for index in found} if _changed_at(path) < latest}
    chosen = [index for index in found if places[index][0] in old]
    again = _keys([places[index] for index in chosen])
    return {key: found[index] for index, key in zip(chosen, again, strict=True) if key == keys[index]}


def _changed_at(path: Path) -> float:
    try:
        stat = path.stat()
    except OSError:
        return float("inf")
    return max(stat.st_mtime, stat.st_ctime)


def _place() -> Path | None:
    try:
        return cache_folder() / "file-digests" / "digests.txt"
    except SuiteError:
        return None


def _read() -> dict[str, bytes]:
    """What is remembered; nothing where it cannot be read. A line that was cut short is no file's."""
    place = _place()
    found: dict[str, bytes] = {}
    try:
        text = place.read_text(encoding="ascii", errors="replace") if place else ""
    except OSError:
        return found
    for line in text.split("\n"):
        key, _, digest = line.partition(" ")
        if len(key) == len(digest) == 2 * SIZE:
            with contextlib.suppress(ValueError):
                found[key] = bytes.fromhex(digest)
    return found


def _remember(found: dict[str, bytes]) -> None:
    """Append in one piece, as another process may too."""
    place = _place()
    if place is None or not found:
        return
    lines = "".join(f"\n{key} {digest.hex()}" for key, digest in found.items())
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("ab", buffering=0) as file:
            file.write(f"{lines}\n".encode("ascii"))
    except OSError as error:
        notice(f"data: {place.parent}: cannot be written ({error.strerror}): files are hashed again next time")


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """Hold the cache's lock, so that processes of one run do not all hash the same files.

    Without a lock each hashes its own, which is slower but not wrong.
    """
    descriptor, place = None, _place()
    try:
        with contextlib.suppress(OSError):
            if place is not None:
                place.parent.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(place.parent / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)
