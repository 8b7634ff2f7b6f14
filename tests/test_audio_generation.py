"""``predict`` for audio: files, conditions, seeds, primes, spectra, memory, and what is refused."""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy
import pytest
import soundfile

from domains.audio import engines, generate
from suite import kernels, samples
from suite.errors import DataError
from suite.kernels import AVAILABLE
from suite.tiles import LANES
from tests.commands import QUIET, Ran, assert_one_line, run, shared
from tests.test_audio_data import rows_of, write_files, write_manifest

MODEL = (
    *("--model.channels", 8, "--model.num_layers", 4, "--model.cycle", 3, "--model.skip_channels", 8),
    *("--trainer.max_epochs", 1, "--trainer.limit_val_batches", 1, "--trainer.limit_test_batches", 1, "--samples", 2),
)


def _train(folder: Path) -> None:
    write_manifest(folder / "list.csv", rows_of(write_files(folder / "audio", count=10), folder))
    common = ("--domain", "audio", *QUIET, *MODEL, "--runs", folder, "--data.dataset", "files", "--data.held_out", 0.2)
    own = ("--data.train", folder / "list.csv")
    spectrum = ("--data.mel.bands", 6, "--data.mel.hop", 16, "--data.mel.window", 64)
    for name, flags in (("plain", ("--data.conditions", "[who, kind]")), ("mel", spectrum)):
        ran = run("fit", *common, *own, *flags, "--name", name)
        assert ran.status == 0, ran.err
        (folder / f"{name}.err").write_text(ran.err)
        (folder / f"{name}.out").write_text(ran.out)


def trained(name: str = "plain") -> Path:
    return shared("audio", _train) / "audio" / name


def predict(folder: Path, *flags: Any, name: str = "plain") -> Ran:
    return run("predict", "--checkpoint", trained(name), "--output", folder, *flags)


def waves(folder: Path) -> list[Any]:
    return [soundfile.read(path, dtype="int16")[0] for path in sorted(folder.glob("*.wav"))]


def test_fit_prints_field_and_bits_of_each_value_and_leaves_sounds() -> None:
    folder = trained().parent.parent
    assert "Receptive field: 9 samples, 1.1 ms at 8000 Hz" in (folder / "plain.err").read_text()
    said = (folder / "plain.out").read_text()
    assert all(f"bits/{name}" in said for name in ("who_a", "who_b", "kind_x", "kind_y", "kind_z"))
    assert "--seconds 1 --count 4" in said
    assert re.search(r"^  who +[ab]\n  kind +[xyz]\n  bits +\d\.\d{3} in [\d,]+ samples$", said, flags=re.MULTILINE)
    sounds = sorted((trained() / "samples").glob("step-*.wav"))
    assert len(sounds) == 2
    assert soundfile.info(sounds[0]).samplerate == 8000
    assert len(sorted((trained() / "samples").glob("step-*.png"))) == 1


def test_the_figure_has_the_name_that_figures_have_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[tuple[str, str]] = []

    def log(loggers: Any, key: str, path: Path, step: int) -> None:
        logged.append((key, path.suffix))

    monkeypatch.setattr(samples, "log_file", log)
    tiny = ("--data.sample_minutes", 0.1, "--trainer.limit_train_batches", 1, "--runs", tmp_path)
    ran = run("fit", "--domain", "audio", *QUIET, *MODEL, *tiny)
    assert ran.status == 0, ran.err
    assert logged == [("samples/0", ".wav"), ("samples/1", ".wav"), ("samples/figure", ".png")]


def test_evaluate_writes_bits_of_every_window(tmp_path: Path) -> None:
    ran = run("evaluate", "--checkpoint", trained(), "--output", tmp_path / "out.jsonl", "--data.window", 200)
    assert ran.status == 0, ran.err
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    total = sum(row["samples"] for row in rows)
    mean = sum(row["samples"] * row["bits"] for row in rows) / total
    printed = float(next(line.split()[1] for line in ran.lines if line.startswith("  bits ")))
    assert mean == pytest.approx(printed, abs=1e-3)
    for who in "ab":
        own = [row for row in rows if row["conditions"]["who"] == who]
        line = next((line for line in ran.lines if f"bits/who_{who}" in line), "")
        if own:
            mean = sum(row["samples"] * row["bits"] for row in own) / sum(row["samples"] for row in own)
            assert mean == pytest.approx(float(line.split()[1]), abs=1e-3)


def test_files_in_order_with_the_conditions_asked_for(tmp_path: Path) -> None:
    flags = ("--seconds", 0.05, "--count", 3, "--condition", "who=b", "--format", "jsonl")
    ran = predict(tmp_path / "out", *flags)
    assert ran.status == 0, ran.err
    rows = [json.loads(line) for line in ran.lines]
    assert [row["index"] for row in rows] == [0, 1, 2]
    for number, row in enumerate(rows):
        assert row["file"] == str(tmp_path / "out" / f"{number:04d}.wav")
        assert row["conditions"]["who"] == "b"
        assert row["conditions"]["kind"] in "xyz"
        found = soundfile.info(row["file"])
        assert (found.samplerate, found.frames, found.channels) == (8000, 400, 1)
    text = predict(tmp_path / "text", *flags[:-2]).lines
    assert [line.split("\t")[1] for line in text] == ["who=b"] * 3


def test_the_seed_decides_and_the_neighbours_do_not(tmp_path: Path) -> None:
    common = ("--seconds", 0.05, "--condition", "who=a", "kind=x")
    fast = {"kernel": ("--count", 3, "--engine", "kernel")} if AVAILABLE else {}
    for name, flags in {
        "three": ("--count", 3), "again": ("--count", 3), "one": (), "other": ("--seed", 1),
        "cold": ("--temperature", 0.3), "alone": ("--count", 3, "--streams", 1),
        "torch": ("--count", 3, "--engine", "torch"), **fast,
    }.items():  # fmt: skip
        assert predict(tmp_path / name, *common, *flags).status == 0
    found = {path.name: waves(path) for path in tmp_path.iterdir()}
    assert len({wave.tobytes() for wave in found["three"]}) == 3
    for name in ("again", "alone", "torch", *fast):
        assert [wave.tobytes() for wave in found[name]] == [wave.tobytes() for wave in found["three"]], name
    assert numpy.array_equal(found["one"][0], found["three"][0])
    for name in ("other", "cold"):
        assert not numpy.array_equal(found[name][0], found["three"][0])


def test_parts_change_nothing_and_are_all_that_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ("--seconds", 0.1, "--count", 2)
    assert predict(tmp_path / "whole", *flags).status == 0
    assert predict(tmp_path / "mel", "--mel_from", tmp_path / "whole" / "0000.wav", name="mel").status == 0
    monkeypatch.setattr(generate, "_PART", 37)
    assert predict(tmp_path / "parts", *flags).status == 0
    assert predict(tmp_path / "melparts", "--mel_from", tmp_path / "whole" / "0000.wav", name="mel").status == 0
    for one, other in (("whole", "parts"), ("mel", "melparts")):
        for left, right in zip(waves(tmp_path / one), waves(tmp_path / other), strict=True):
            assert len(left) == 800
            assert numpy.array_equal(left, right)


def test_a_prime_is_heard_as_far_as_the_model_hears(tmp_path: Path) -> None:
    rng = numpy.random.default_rng(0)
    loud, tail = rng.uniform(-0.9, 0.9, 500), rng.uniform(-0.9, 0.9, 30)
    soundfile.write(tmp_path / "a.wav", numpy.concatenate([loud, tail]), 8000, subtype="FLOAT")
    soundfile.write(tmp_path / "b.wav", tail, 8000, subtype="FLOAT")
    common = ("--seconds", 0.02, "--condition", "who=a", "kind=x")
    for name in ("a", "b"):
        assert predict(tmp_path / name, *common, "--prime", tmp_path / f"{name}.wav").status == 0
    assert predict(tmp_path / "none", *common).status == 0
    assert numpy.array_equal(waves(tmp_path / "a")[0], waves(tmp_path / "b")[0])
    assert not numpy.array_equal(waves(tmp_path / "a")[0], waves(tmp_path / "none")[0])


def test_a_spectrum_decides_the_length_and_the_sound(tmp_path: Path) -> None:
    files = write_files(tmp_path / "source", count=2)
    for number, path in enumerate(files):
        assert predict(tmp_path / str(number), "--mel_from", path, name="mel").status == 0
    found = [waves(tmp_path / str(number))[0] for number in range(2)]
    assert [len(wave) for wave in found] == [900, 1000]
    assert not numpy.array_equal(found[0], found[1][:900])
    assert predict(tmp_path / "short", "--mel_from", files[0], "--seconds", 0.05, name="mel").status == 0
    assert numpy.array_equal(waves(tmp_path / "short")[0], found[0][:400])


@pytest.mark.parametrize(
    ("flags", "status", "parts"),
    [
        (["--condition", "who=c"], 2, ["who=c", "allowed for who are a, b"]),
        (["--condition", "speaker=a"], 2, ["speaker=a", "who, kind"]),
        (["--condition", "who"], 2, ["NAME=VALUE"]),
        (["--condition", "who=a", "who=b"], 2, ["who=b", "once"]),
        (["--seconds", "0"], 2, ["--seconds must be from the length of one sample to a million, got 0.0"]),
        (["--count", "0"], 2, ["--count must be at least 1, got 0"]),
        (["--streams", "0"], 2, ["--streams must be at least 1, got 0"]),
        (["--temperature", "0"], 2, ["--temperature must be above 0 and below 100, got 0"]),
        (["--engine", "jax"], 2, ["engine", "kernel"]),
        (["--mel_from", "x.wav"], 2, ["--mel_from", "not conditioned"]),
        (["--prime", "none.wav"], 1, ["none.wav", "no such file"]),
        (["--second", "1"], 2, ["--second", "did you mean --seconds?"]),
    ],
)
def test_what_is_refused(flags: list[str], status: int, parts: list[str], tmp_path: Path) -> None:
    assert_one_line(predict(tmp_path / "out", *flags), status, *parts)


def test_the_kernel_without_numba_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is made; what chooses by itself says that it generates by another engine, and does."""
    monkeypatch.setattr(kernels, "AVAILABLE", False)
    assert_one_line(predict(tmp_path / "out", "--engine", "kernel"), 2, "--engine kernel", "numba", "auto and torch")
    assert not (tmp_path / "out").exists()
    engines._say_that_torch_stands_in.cache_clear()
    ran = predict(tmp_path / "out", "--seconds", 0.01, "--count", 3, "--streams", 1)
    assert ran.status == 0, ran.err
    assert ran.err.count("without numba") == 1


def test_a_vocoder_needs_a_spectrum_and_no_prime(tmp_path: Path) -> None:
    (path,) = write_files(tmp_path / "source", count=1)
    assert_one_line(predict(tmp_path / "out", name="mel"), 2, "--mel_from")
    assert_one_line(
        predict(tmp_path / "out", "--mel_from", path, "--seconds", 5, name="mel"),
        2,
        "--seconds must be at most 0.11",
        "got 5.0",
    )
    assert_one_line(
        predict(tmp_path / "out", "--mel_from", path, "--prime", path, name="mel"), 2, "--prime", "--mel_from"
    )


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert_one_line(predict(tmp_path / "file"), 1, "file", "--output")
    (tmp_path / "out" / "0000.wav").mkdir(parents=True)
    ran = predict(tmp_path / "out", "--seconds", 0.01, "--overwrite")
    assert_one_line(ran, 1, "0000.wav", "cannot be written")


def test_files_are_not_written_over_unasked(tmp_path: Path) -> None:
    flags = ("--condition", "who=a", "kind=x", "--seconds", 0.02)
    assert predict(tmp_path / "out", *flags, "--count", 1).status == 0
    [first] = [path.read_bytes() for path in (tmp_path / "out").iterdir()]
    again = (*flags, "--count", 2, "--seed", 1)
    assert_one_line(predict(tmp_path / "out", *again), 1, "0000.wav", "--output", "--overwrite")
    assert [path.read_bytes() for path in (tmp_path / "out").iterdir()] == [first]
    assert predict(tmp_path / "out", *again, "--overwrite").status == 0
    files = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in files] == ["0000.wav", "0001.wav"]
    assert files[0].read_bytes() != first


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    assert predict(tmp_path / "out", "--seconds", 0.05).status == 0
    broken = numpy.zeros(400, dtype=numpy.float32)
    broken[100] = numpy.nan
    soundfile.write(tmp_path / "nan.wav", broken, 8000, subtype="FLOAT")
    before = (tmp_path / "out" / "0000.wav").read_bytes()
    ran = predict(tmp_path / "out", "--mel_from", tmp_path / "nan.wav", "--overwrite", name="mel")
    assert_one_line(ran, 1, "nan.wav")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["0000.wav"]
    assert (tmp_path / "out" / "0000.wav").read_bytes() == before
    own = tmp_path / "out" / "0000.wav"
    assert predict(tmp_path / "out", "--mel_from", own, "--overwrite", name="mel").status == 0
    assert soundfile.info(own).frames == 400


def test_threads_share_the_files_of_a_command(tmp_path: Path) -> None:
    flags = ("--seconds", 0.05, "--count", 2 * LANES + 1)
    for name, threads in (("one", 1), ("two", 2)):
        assert predict(tmp_path / name, *flags, "--threads", threads).status == 0
    for one, other in zip(waves(tmp_path / "one"), waves(tmp_path / "two"), strict=True):
        assert numpy.array_equal(one, other)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc")
def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:

    def peak() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmRSS")))

    flags = ("--condition", "who=a", "kind=x")
    assert predict(tmp_path / "a", *flags, "--seconds", 1).status == 0
    before = peak()
    assert predict(tmp_path / "b", *flags, "--seconds", 40).status == 0
    assert peak() - before < 20_000, "kilobytes"  # 40 s of draws, classes and samples at once are well beyond


def test_a_manifest_of_requests(tmp_path: Path) -> None:
    """Each row is the file that its seed and conditions give by flags; results are in its order."""
    rows = [
        {"who": "a", "kind": "x", "seconds": "0.05", "seed": "3", "output": "first", "note": "n"},
        {"who": "b ", "kind": "", "seconds": "", "seed": "7", "output": "second.wav", "note": ""},
        {"who": "c", "kind": "x", "seconds": "", "seed": "", "output": "third", "note": ""},
        {"who": "a", "kind": "x", "seconds": "long", "seed": "", "output": "", "note": ""},
        {"who": "a", "kind": "x", "seconds": "0.02", "seed": "", "output": "", "note": ""},
    ]
    manifest = write_manifest(tmp_path / "wanted.csv", rows)
    ran = predict(tmp_path / "out", manifest, "--seconds", 0.03, "--format", "jsonl")
    assert ran.status == 1
    assert "columns without a use are left out: note" in ran.err
    assert "2 of 5 input(s) gave no prediction" in ran.err
    found = [json.loads(line) for line in ran.lines]
    assert [row["index"] for row in found] == list(range(5))
    assert "who=c: allowed for who are a, b" in found[2]["error"]
    assert "row 4: seconds is 'long', not a number" in found[3]["error"]
    names = [Path(row["file"]).name for row in found if "error" not in row]
    assert names == ["first.wav", "second.wav", "0004.wav"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)
    assert [found[number]["seed"] for number in (0, 1, 4)] == [3, 7, 0]
    assert found[1]["conditions"]["who"] == "b"
    for number, seconds in ((0, 0.05), (1, 0.03)):
        given = [f"{name}={value}" for name, value in found[number]["conditions"].items()]
        flags = ("--seconds", seconds, "--seed", found[number]["seed"], "--condition", *given)
        assert predict(tmp_path / f"single-{number}", *flags).status == 0
        single, row = (
            soundfile.read(path)[0] for path in (tmp_path / f"single-{number}/0000.wav", found[number]["file"])
        )
        assert numpy.array_equal(single, row)


@pytest.mark.parametrize(
    ("rows", "flags", "words"),
    [
        (
            [{"what": "x"}],
            (),
            "its columns are what; at least one of who, kind, seconds, seed, output, prime, mel_from",
        ),
        ([{"who": "a"}], ("--count", 2), "leave --count out"),
    ],
)
def test_manifests_that_are_refused(rows: Any, flags: Any, words: str, tmp_path: Path) -> None:
    ran = predict(tmp_path / "out", write_manifest(tmp_path / "wanted.csv", rows), *flags)
    assert ran.status != 0
    assert words in ran.err


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "same", "x" * 300])
def test_names_of_outputs(name: str, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "wanted.csv", [{"output": name}, {"output": "same"}, {"output": "good"}])
    ran = predict(tmp_path / "out", manifest, "--seconds", 0.01)
    said = f"output is {name!r} in 2 rows" if name == "same" else f"without a folder, got {name!r}"
    assert "\terror\toutput " in ran.lines[0]
    assert said in ran.lines[0]
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["good.wav", "same.wav"][
        : 1 + (name != "same")
    ]


@pytest.mark.parametrize("form", ["folder", "glob", "manifest"])
def test_many_spectra_of_which_one_is_bad(form: str, tmp_path: Path) -> None:
    paths = write_files(tmp_path / "in", count=4)
    paths[1].write_bytes(paths[1].read_bytes()[:-40])
    soundfile.write(paths[2], numpy.full(900, numpy.nan), 8000, subtype="FLOAT")
    manifest = write_manifest(tmp_path / "wanted.csv", [{"mel_from": f"in/{path.name}"} for path in paths])
    given = {
        "folder": ("--mel_from", tmp_path / "in"),
        "glob": ("--mel_from", tmp_path / "in" / "*.wav"),
        "manifest": (manifest,),
    }
    ran = predict(tmp_path / "out", *given[form], name="mel")
    assert ran.status == 1
    assert "2 of 4 input(s) gave no prediction" in ran.err
    assert [line.split("\t")[1] == "error" for line in ran.lines] == [False, True, True, False]
    assert "40 bytes shorter than its header says" in ran.lines[1]
    assert "sample 0 is not a finite number" in ran.lines[2]
    assert f"mel_from={paths[3]}" in ran.lines[3]
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["0000.wav", "0003.wav"]
    assert predict(tmp_path / "one", "--mel_from", paths[3], name="mel").status == 0
    assert [len(wave) for wave in waves(tmp_path / "out")] == [900, 1200]


def test_a_prime_in_the_range_of_integers_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", numpy.arange(-500.0, 500.0), 8000, subtype="FLOAT")
    assert_one_line(predict(tmp_path / "out", "--prime", tmp_path / "a.wav"), 1, "a.wav", "integer range?")


def test_a_request_that_fails_late_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a file cannot be renamed, and where a recording is damaged after it was checked."""
    (tmp_path / "out" / "a.wav").mkdir(parents=True)
    manifest = write_manifest(tmp_path / "wanted.csv", [{"output": "a"}, {"output": "b"}])
    ran = predict(tmp_path / "out", manifest, "--seconds", 0.01, "--overwrite")
    assert ran.status == 1
    assert ["cannot be written" in line for line in ran.lines] == [True, False]
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["a.wav", "b.wav"]
    paths = write_files(tmp_path / "in", count=3)
    open_clip = generate.open_clip

    def open_some(path: Path, *, rate: int) -> Any:
        if path == paths[1]:
            raise DataError(f"{path}: damaged")
        return open_clip(path, rate=rate)

    monkeypatch.setattr(generate, "open_clip", open_some)
    ran = predict(tmp_path / "copies", "--mel_from", tmp_path / "in", name="mel")
    assert ran.status == 1
    assert ["damaged" in line for line in ran.lines] == [False, True, False]
    assert [path.name for path in sorted((tmp_path / "copies").iterdir())] == ["0000.wav", "0002.wav"]
