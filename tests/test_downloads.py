"""Downloads of public sets: from a server of this process, never from the network."""

import errno
import gzip
import hashlib
import importlib
import importlib.util
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import domains
from domains.audio import remotes as audio
from domains.audio.listing import list_named
from domains.text import corpora
from domains.text import remotes as text
from domains.translation import remotes as translation
from domains.translation.data import TranslationData
from suite import downloads
from suite.downloads import Remote
from suite.errors import DataError
from suite.sources import data_folder
from tests.commands import assert_one_line, run
from tests.forked import free_port

DATA = os.environ.get("SUITE_DATA_DIR")
TEXT = b"a line\nand another\n" * 1000
OTHER = b"RIFF and so on" * 50


class Server(ThreadingHTTPServer):
    """Files by path; ``cut`` ends every answer after so many bytes, ``silent`` gives none."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[str, bytes] = {}
        self.asked: Counter[str] = Counter()
        self.cut: int | None = None
        self.silent, self.released = False, threading.Event()

    def put(self, file: str, content: bytes, **changes: Any) -> Remote:
        """Serve a file, and say what is known of it, but for ``changes``."""
        self.files[f"/owner/set/{file}"] = content
        remote = Remote(f"http://127.0.0.1:{self.server_port}/owner/set/{file}", len(content), digest(content))
        return remote._replace(**changes)


class Answer(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked[self.path.rsplit("/", 1)[1]] += 1
        if self.server.silent:
            self.server.released.wait(30)
            return
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: self.server.cut])

    def log_message(self, *args: Any) -> None:
        pass


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.02,))
        thread.start()
        yield serving
        serving.released.set()
        serving.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the set in an empty cache, with downloads allowed and no other folder of data."""
    monkeypatch.delenv("SUITE_DATA_DIR", raising=False)
    monkeypatch.delenv("SUITE_OFFLINE")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("SUITE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "data" / "pairs"


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("[!.]*"))


def left_over(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("*.tmp")]


def test_what_is_downloaded_is_found_again_without_a_server(
    server: Server, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    remotes = {"a.txt.gz": server.put("a.txt", TEXT, packed=True), "b.wav": server.put("b.wav", OTHER)}
    assert data_folder("pairs", files=list(remotes), remotes=remotes) == cache
    assert (cache / "b.wav").read_bytes() == OTHER
    assert (cache / "a.txt.gz").read_bytes() == gzip.compress(TEXT, mtime=0)
    assert gzip.decompress((cache / "a.txt.gz").read_bytes()) == TEXT
    assert visible(cache) == ["a.txt.gz", "b.wav"]
    assert not left_over(cache)
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    place = f"127.0.0.1:{server.server_port}/owner/set"
    assert f"pairs: 2 file(s), {len(TEXT) + len(OTHER):,} bytes, are downloaded from {place} to {cache}" in said
    server.shutdown()
    for files in (list(remotes), ["b.wav"], []):
        assert data_folder("pairs", files=files, remotes=remotes) == cache
    assert not capfd.readouterr().err
    assert server.asked == {"a.txt": 1, "b.wav": 1}


def test_a_given_folder_comes_first(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remotes = {"a.txt": server.put("a.txt", TEXT)}
    monkeypatch.setenv("SUITE_DATA_DIR", str(tmp_path / "given"))
    (tmp_path / "given" / "pairs").mkdir(parents=True)
    (tmp_path / "given" / "pairs" / "a.txt").write_bytes(b"the user's own")
    for files in (["a.txt"], []):
        assert data_folder("pairs", files=files, remotes=remotes) == tmp_path / "given" / "pairs"
    assert not server.asked


@pytest.mark.parametrize("files", [["a.txt"], []])
@pytest.mark.parametrize("given", ["no folder of data", "no folder of the set", "empty"])
def test_a_given_folder_that_lacks_files_stays_as_it_is(
    files: list[str], given: str, server: Server, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remotes = {"a.txt": server.put("a.txt", TEXT)}
    if given != "no folder of data":
        monkeypatch.setenv("SUITE_DATA_DIR", str(tmp_path / "given"))
        (tmp_path / "given").mkdir()
    if given == "empty":
        (tmp_path / "given" / "pairs").mkdir()
    assert data_folder("pairs", files=files, remotes=remotes) == cache
    assert (cache / "a.txt").read_bytes() == TEXT
    assert not list(tmp_path.glob("given/pairs/*"))


def test_only_missing_files_are_fetched(server: Server, cache: Path) -> None:
    remotes = {name: server.put(name, name.encode()) for name in ("a", "b", "c")}
    data_folder("pairs", files=["a"], remotes={"a": remotes["a"]})
    assert visible(cache) == ["a"]
    data_folder("pairs", files=["b"], remotes=remotes)
    assert server.asked == {"a": 1, "b": 1, "c": 1}
    assert visible(cache) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sha256": digest(b"x")}, rf"another file came than is meant \(SHA-256 {digest(TEXT)}, not {digest(b'x')}\)"),
        ({"size": len(TEXT) - 1}, "more than 18,999 bytes came where the file has 18,999"),
        ({"size": len(TEXT) + 1}, "19,000 bytes came where the file has 19,001"),
    ],
)
def test_another_file_than_is_meant(changes: dict[str, Any], words: str, server: Server, cache: Path) -> None:
    remotes = {"a.txt": server.put("a.txt", TEXT, **changes)}
    with pytest.raises(DataError, match=words) as caught:
        data_folder("pairs", files=["a.txt"], remotes=remotes)
    assert "SUITE_DATA_DIR is not set: point it at the folder in which pairs/ holds a.txt" in str(caught.value)
    assert remotes["a.txt"].url in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not visible(cache)
    assert not left_over(cache)


def test_a_file_that_the_server_does_not_have(server: Server, cache: Path) -> None:
    remotes = {"a": server.put("a", TEXT), "b": server.put("b", TEXT)}
    del server.files["/owner/set/b"]
    with pytest.raises(DataError, match=r"pairs/ holds a, b \(not downloaded: http:.*/b: the answer is 404"):
        data_folder("pairs", files=["a", "b"], remotes=remotes)
    assert visible(cache) == ["a"]


def test_a_connection_that_breaks_leaves_nothing_and_is_repeated(server: Server, cache: Path) -> None:
    remotes = {"a.txt": server.put("a.txt", TEXT)}
    server.cut = 100
    with pytest.raises(DataError, match=r"100 bytes came|not all of it"):
        data_folder("pairs", files=["a.txt"], remotes=remotes)
    assert not visible(cache)
    server.cut = None
    data_folder("pairs", files=["a.txt"], remotes=remotes)
    assert (cache / "a.txt").read_bytes() == TEXT


def test_a_server_that_does_not_answer(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "_WAITING", 0.2)
    remotes = {"a.txt": server.put("a.txt", TEXT)}
    server.silent = True
    with pytest.raises(DataError, match=r"no answer, or not all of it \(timed out\)"):
        data_folder("pairs", files=["a.txt"], remotes=remotes)


def test_all_addresses_of_a_host_share_the_time_to_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def refuse(address: Any, timeout: float, *args: Any) -> None:
        given.append(timeout)
        raise OSError("refused")

    monkeypatch.setattr(downloads.socket, "getaddrinfo", lambda *args, **kwargs: [None] * 8)
    monkeypatch.setattr(downloads.socket, "create_connection", refuse)
    with pytest.raises(DataError, match="refused"):
        data_folder("pairs", files=["a"], remotes={"a": Remote("https://127.0.0.1/owner/set/a", 1, digest(b"a"))})
    assert given == [1.0]


@pytest.mark.parametrize(("proxy", "words"), [(None, "Connection refused"), ("127.0.0.1:x", "nonnumeric port")])
def test_no_server_at_all(proxy: str | None, words: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if proxy:
        monkeypatch.delenv("no_proxy")
        monkeypatch.setenv("http_proxy", proxy)
    remotes = {"a": Remote(f"http://127.0.0.1:{free_port()}/a", 1, digest(b"a"))}
    with pytest.raises(DataError, match=rf"SUITE_DATA_DIR is not set.*not downloaded: http.*{words}") as caught:
        data_folder("pairs", files=["a"], remotes=remotes)
    assert "\n" not in str(caught.value)
    assert not visible(cache)


@pytest.mark.parametrize(("value", "asked"), [("1", 0), ("", 1), ("0", 1)])
def test_offline(value: str, asked: int, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remotes = {"a.txt": server.put("a.txt", TEXT)}
    monkeypatch.setenv("SUITE_OFFLINE", value)
    if asked:
        data_folder("pairs", files=["a.txt"], remotes=remotes)
    else:
        with pytest.raises(DataError, match=r"pairs/ holds a\.txt \(not downloaded: SUITE_OFFLINE is set\)"):
            data_folder("pairs", files=["a.txt"], remotes=remotes)
        assert not cache.parent.parent.exists()
    assert server.asked["a.txt"] == asked
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "a.txt").write_bytes(TEXT)
    monkeypatch.setenv("SUITE_OFFLINE", "1")
    assert data_folder("pairs", files=["a.txt"], remotes=remotes) == cache


def test_a_cache_that_cannot_be_written(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remotes = {"a.txt": server.put("a.txt", TEXT)}
    (tmp_path / "cache").write_text("a file")
    words = r"pairs cannot be written \(Not a directory\): set SUITE_CACHE_DIR to another folder"
    with pytest.raises(DataError, match=words) as caught:
        data_folder("pairs", files=["a.txt"], remotes=remotes)
    assert "SUITE_DATA_DIR is not set" in str(caught.value)
    assert not server.asked
    monkeypatch.setenv("SUITE_CACHE_DIR", "~nobody-of-that-name/cache")
    with pytest.raises(DataError, match=r"SUITE_DATA_DIR is not set.*no such home folder; set SUITE_CACHE_DIR"):
        data_folder("pairs", files=["a.txt"], remotes=remotes)


@pytest.mark.parametrize("stop", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()])
def test_what_is_stopped_while_writing_leaves_nothing(
    stop: BaseException, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remotes = {"a.txt": server.put("a.txt", TEXT)}

    def fail(descriptor: int) -> None:
        raise stop

    with monkeypatch.context() as patched:
        patched.setattr(downloads.os, "fsync", fail)
        with pytest.raises((DataError, KeyboardInterrupt), match=r"No space left on device|^$"):
            data_folder("pairs", files=["a.txt"], remotes=remotes)
    assert not visible(cache)
    assert not left_over(cache)
    data_folder("pairs", files=["a.txt"], remotes=remotes)
    assert (cache / "a.txt").read_bytes() == TEXT


@pytest.mark.parametrize("locks", [True, False])
def test_two_at_once(
    locks: bool, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """One downloads, and says so, and the others wait; where files cannot be locked, all do, and each file is whole."""

    def no_locks(*args: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    if not locks:
        monkeypatch.setattr(downloads.fcntl, "flock", no_locks)
    remotes = {f"{number}.gz": server.put(str(number), TEXT * (number + 1), packed=True) for number in range(5)}
    problems: list[BaseException] = []
    together = threading.Barrier(4)

    def fetch() -> None:
        try:
            together.wait()
            data_folder("pairs", files=list(remotes), remotes=remotes)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    for number in range(5):
        assert gzip.decompress((cache / f"{number}.gz").read_bytes()) == TEXT * (number + 1)
    assert not left_over(cache)
    if locks:
        assert set(server.asked.values()) == {1}
        assert capfd.readouterr().err.count("are downloaded from") == 1


def test_a_domain_asks_for_the_files_that_it_needs(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = {f"{file}.tsv": server.put(f"{file}.tsv", b"it is fine\t1\n") for file in ("train", "dev", "test")}
    monkeypatch.setitem(text.REMOTES, "sst2", rows)
    assert corpora.labelled("sst2", "val") == [("it is fine", "positive")]
    sentences = {f"{file}.all.txt.gz": server.put(f"{file}.all", b"0 caf\xe9\n", packed=True) for file in ("subj", "x")}
    monkeypatch.setitem(text.REMOTES, "sentences", sentences)
    assert corpora.labelled("subj", "train") == [("caf\xe9", "subjective")]
    names = [f"{split}.{side}.gz" for split in ("train", "val", "test_2016_flickr") for side in ("en", "de", "fr")]
    lines = {name: server.put(name, gzip.compress(name.encode() + b"\n")) for name in names}
    monkeypatch.setitem(translation.REMOTES, "multi30k", lines)
    data = TranslationData(dataset="multi30k", source_language="fr", target_language="en")
    for split, file in (("test", "test_2016_flickr"), ("train", "train"), ("val", "val")):
        assert data.pairs(split) == [(f"{file}.fr.gz", f"{file}.en.gz")]
    clips = {f"LJ001-000{number}.wav": server.put(f"LJ001-000{number}.wav", OTHER) for number in range(1, 5)}
    monkeypatch.setitem(audio.REMOTES, "ljspeech", clips)
    assert [item.path for item in list_named("ljspeech")] == [cache.parent / "ljspeech" / name for name in clips]
    assert server.asked == Counter([*rows, "subj.all", *clips, *(name for name in names if ".de." not in name)])
    said = capfd.readouterr().err
    assert said.count("are downloaded from") == 4
    assert said.count("\n") == 5, "and that the clips are an excerpt"


def test_a_command_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{free_port()}/owner/set/"
    table = {name: remote._replace(url=url + name) for name, remote in translation.REMOTES["multi30k"].items()}
    monkeypatch.setitem(translation.REMOTES, "multi30k", table)
    ran = run("fit", "--domain", "translation", "--data.dataset", "multi30k", "--runs", tmp_path / "runs")
    said, problem = ran.err.splitlines()
    assert (ran.status, ran.out) == (1, "")
    assert "multi30k: 6 file(s), 1,2" in said
    for part in ("SUITE_DATA_DIR is not set", "multi30k", "train.en.gz", "Connection refused"):
        assert part in problem
    assert not (tmp_path / "runs").exists()
    monkeypatch.setenv("SUITE_OFFLINE", "1")
    ran = run("fit", "--domain", "translation", "--data.dataset", "multi30k", "--runs", tmp_path / "runs")
    assert_one_line(ran, 1, "SUITE_DATA_DIR is not set", "train.en.gz", "SUITE_OFFLINE is set")


def tables() -> dict[tuple[str, str, str], Remote]:
    """Every file of every domain's table, by domain, set and file."""
    found: dict[tuple[str, str, str], Remote] = {}
    for name in domains.available():
        if importlib.util.find_spec(f"domains.{name}.remotes"):
            table = importlib.import_module(f"domains.{name}.remotes").REMOTES
            found |= {(name, folder, file): remote for folder in table for file, remote in table[folder].items()}
    return found


def test_tables_are_pinned() -> None:
    assert {"sst2", "multi30k", "ljspeech"} <= {folder for _, folder, _ in tables()}
    pinned = re.compile(r"https://raw\.githubusercontent\.com/[\w.-]+/[\w.-]+/([0-9a-f]{40}|v\d+\.\d+\.\d+)/[\w./-]+")
    for key, remote in tables().items():
        assert pinned.fullmatch(remote.url), key
        assert re.fullmatch("[0-9a-f]{64}", remote.sha256), key
        assert 0 < remote.size < 10_000_000, key
        assert not remote.packed or key[-1].endswith(".gz"), key


@pytest.mark.data
@pytest.mark.skipif(not DATA, reason="SUITE_DATA_DIR is not set")
@pytest.mark.parametrize("key", tables(), ids="/".join)
def test_tables_know_the_files(key: tuple[str, str, str]) -> None:
    path, remote = Path(DATA or "").joinpath(*key[1:]), tables()[key]
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    content = path.read_bytes()
    content = gzip.decompress(content) if remote.packed else content
    assert (len(content), digest(content)) == (remote.size, remote.sha256)
