"""How long a download waits: little for an address, and more for what follows once it is reached."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from suite import downloads
from suite.downloads import Remote, cached_folder
from suite.errors import DataError

_SHORT = 0.2


@pytest.fixture
def slow() -> Iterator[int]:
    """The port of a server that answers later than an address may take: "no", whatever it is asked."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(30)

        def answer() -> None:
            connection, _ = listening.accept()
            with connection, contextlib.suppress(OSError):  # it may have been left
                connection.recv(4096)
                time.sleep(4 * _SHORT)
                connection.sendall(b"HTTP/1.1 403 no\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


@pytest.mark.parametrize(("proxy", "words"), [(True, "Tunnel connection failed: 403 no"), (False, "SSL")])
def test_a_proxy_and_tls_may_take_longer_than_an_address(
    proxy: bool, words: str, slow: int, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_CONNECTING", _SHORT)
    monkeypatch.setenv("SUITE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("SUITE_OFFLINE")
    monkeypatch.setenv("no_proxy", "" if proxy else "127.0.0.1")
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{slow}")
    host = "files.invalid" if proxy else f"127.0.0.1:{slow}"
    with pytest.raises(DataError, match=words):
        cached_folder("pairs", files=[], remotes={"a": Remote(f"https://{host}/a", 1, "")})
