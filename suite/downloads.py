"""Public files, downloaded once into the cache: of each, size and SHA-256 are known before it is asked for.

A file has its final name only when it is whole and is the one that is meant. What was downloaded is found again without
a network. Nothing is unpacked or run; text that loaders read compressed is compressed here.
"""

import contextlib
import fcntl
import gzip
import hashlib
import http.client
import os
import secrets
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from suite.cache import cache_folder
from suite.console import notice
from suite.errors import DataError

_CONNECTING = 8.0  # seconds for all addresses of a host: who has no network hears so soon
_WAITING = 20.0  # seconds without a byte


class Remote(NamedTuple):
    """A file that does not change: ``size`` bytes at ``url``, with that ``sha256``.

    ``packed``: it is kept compressed by gzip; size and digest are those of the bytes at ``url``.
    """

    url: str
    size: int
    sha256: str
    packed: bool = False


def github_url(repository: str, version: str, path: str) -> str:
    """Where GitHub has the file ``path`` of ``repository`` (OWNER/NAME) as it was at a commit or tag."""
    return f"https://raw.githubusercontent.com/{repository}/{version}/{path}"


def cached_folder(name: str, *, files: Sequence[str], remotes: Mapping[str, Remote]) -> Path:
    """The folder of the cache that holds ``files`` (all of ``remotes`` if none is named) of the set ``name``.

    Where it lacks one of them, what it lacks of ``remotes`` is downloaded, unless ``SUITE_OFFLINE`` is set.

    Raises:
        DataError: ``SUITE_OFFLINE`` is set, a file cannot be had or is not the one that is meant, or the cache cannot
            be written.
        SuiteError: there is no place for a cache.
    """
    folder = cache_folder() / "data" / name
    if all(os.path.isfile(folder / file) for file in files or remotes):
        return folder
    if os.environ.get("SUITE_OFFLINE", "0") not in ("", "0"):
        raise DataError("SUITE_OFFLINE is set")
    _download(name, remotes, folder)
    return folder


def _download(name: str, remotes: Mapping[str, Remote], folder: Path) -> None:
    """Download what ``folder`` lacks of ``remotes``, and say so."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(name, folder):
            missing = _missing(folder, remotes)  # and not before: others may have had the same wish
            _announce(name, missing, folder)
            for file, remote in missing.items():
                data = _read(remote)
                _save(folder / file, gzip.compress(data, mtime=0) if remote.packed else data)
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written ({error.strerror or error}): set SUITE_CACHE_DIR to another folder"
        ) from None


def _announce(name: str, missing: Mapping[str, Remote], folder: Path) -> None:
    if missing:
        size = sum(remote.size for remote in missing.values())
        places = ", ".join(sorted({_place(remote.url) for remote in missing.values()}))
        notice(f"data: {name}: {len(missing)} file(s), {size:,} bytes, are downloaded from {places} to {folder}")


def _missing(folder: Path, remotes: Mapping[str, Remote]) -> dict[str, Remote]:
    return {file: remote for file, remote in remotes.items() if not os.path.isfile(folder / file)}


def _place(url: str) -> str:
    """Host and repository of a URL."""
    parts = urlsplit(url)
    return "/".join([parts.netloc, *parts.path.split("/")[1:3]])


@contextlib.contextmanager
def _one_at_a_time(name: str, folder: Path) -> Iterator[None]:
    """Wait while another process downloads to ``folder``, and say so: the ranks of a run ask for each file once.

    Where files cannot be locked each downloads its own, which harms nothing.
    """
    descriptor = None
    try:
        with contextlib.suppress(OSError):
            descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                notice(f"data: {name}: waiting for another process, which downloads to {folder}")
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _reach(address: tuple[str, int], timeout: float, source_address: tuple[str, int] | None = None) -> socket.socket:
    """A socket to ``address``: soon, or OSError. ``timeout`` is for what follows: CONNECT of a proxy, TLS, the file."""
    # The time limit of a socket is for one address, and a host may have eight.
    each = _CONNECTING / len(socket.getaddrinfo(*address, type=socket.SOCK_STREAM))
    reached = socket.create_connection(address, each, source_address)
    reached.settimeout(timeout)
    return reached


class _Connection(http.client.HTTPConnection):
    """Gives up soon where nothing answers, and is patient with what does."""

    def connect(self) -> None:
        self._create_connection = _reach  # an attribute of http.client's own, which is called here alone
        super().connect()


class _SecureConnection(_Connection, http.client.HTTPSConnection):
    """The same with TLS, whose certificates are verified."""


class _Handler(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, req)


class _SecureHandler(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_SecureConnection, req)


def _read(remote: Remote) -> bytes:
    """The bytes of a file, which are those that are meant. They are held in memory: a few megabytes."""
    parts = urlsplit(remote.url)
    assert parts.scheme == "https" or parts.hostname == "127.0.0.1", remote.url
    try:
        with urllib.request.build_opener(_Handler, _SecureHandler).open(remote.url, timeout=_WAITING) as response:
            data: bytes = response.read(remote.size + 1)
    except urllib.error.HTTPError as error:
        raise DataError(f"{remote.url}: the answer is {error.code} ({error.reason})") from None
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a proxy that is no address
        reason = " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__
        raise DataError(f"{remote.url}: no answer, or not all of it ({reason})") from None
    if len(data) != remote.size:
        given = f"more than {remote.size:,}" if len(data) > remote.size else f"{len(data):,}"
        raise DataError(f"{remote.url}: {given} bytes came where the file has {remote.size:,}")
    if (digest := hashlib.sha256(data).hexdigest()) != remote.sha256:
        raise DataError(f"{remote.url}: another file came than is meant (SHA-256 {digest}, not {remote.sha256})")
    return data


def _save(path: Path, data: bytes) -> None:
    """Write ``path`` so that it is there whole or not at all. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:  # and not tempfile, whose files others who share the cache could not read
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
