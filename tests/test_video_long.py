"""Long videos: clips that stay in the cache give the results of whole batches, in little memory."""

import gc
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import av
import numpy
import pytest
import torch
from torch import nn

from domains.video import data as clip_data
from domains.video import network
from domains.video.cnn import CNNConfig
from domains.video.data import ClipData
from domains.video.listing import list_items
from domains.video.model import ClipModule
from domains.video.sampling import SamplingConfig
from domains.video.stored import StoredClips
from suite.recurrent import EncoderConfig
from suite.vocabulary import Labels
from tests.commands import QUIET, run

ASSETS = {"labels": Labels.collect(["a", "b"]).state(), "counts": [5, 5], "mean": [0.5] * 3, "deviation": [0.2] * 3}


def write_long(path: Path, *, frames: int, size: int = 32) -> Path:
    """A square that moves, in grey, quickly encoded."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "30"})
        stream.width = stream.height = size
        stream.pix_fmt, stream.codec_context.thread_count = "yuv420p", 1
        for number in range(frames):
            picture = numpy.full((size, size, 3), 90, numpy.uint8)
            picture[number % size :, : number % size] = 200
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long")
    for label, lengths in (("a", (50, 7)), ("b", (31, 1))):
        for number, length in enumerate(lengths):
            write_long(folder / "in" / label / f"{number}.mp4", frames=length)
    (folder / "in" / "b" / "bad.mp4").write_bytes(b"")
    return folder


def examples_in(folder: Path, sampling: SamplingConfig) -> tuple[ClipData, list[Any]]:
    data = ClipData(dataset="files", train=str(folder / "in"), size=16, cache=str(folder), sampling=sampling)
    examples = data.load_inputs([str(item.path) for item in list_items(folder / "in")])
    return data, [examples.fetch(index, 0) for index in range(len(examples.lengths))]


def module_of(**settings: Any) -> ClipModule:
    torch.manual_seed(1)
    cnn = CNNConfig(kind="vgg", width=8, stages=2, grid=2, feature_size=12, norm="batch")
    module = ClipModule(ASSETS, **{"cnn": cnn, "encoder": EncoderConfig(cell="gru", hidden_size=10), **settings})
    for each in module.modules():  # statistics as after training
        if isinstance(each, nn.BatchNorm2d):
            nn.init.uniform_(each.running_mean, -1, 1)  # type: ignore[arg-type]
            nn.init.uniform_(each.running_var, 0.5, 2)  # type: ignore[arg-type]
    return module.eval()


@pytest.mark.parametrize("streams", ["rgb", "difference", "both"])
@pytest.mark.parametrize("head", ["recurrent", "average"])
@pytest.mark.parametrize(
    "sampling", [SamplingConfig(kind="all"), SamplingConfig(kind="dense", num_frames=9, stride=2, test_clips=3)]
)
def test_stored_clips_give_the_same_results(
    sampling: SamplingConfig, head: Any, streams: Any, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = module_of(streams=streams, head=head)
    data, examples = examples_in(clips, sampling)
    whole = data.collate(examples)
    with torch.enable_grad():
        expected = module.score(whole)
    monkeypatch.setattr(network, "PIXELS_AT_ONCE", 5 * 16**2)
    monkeypatch.setattr(clip_data, "MOST_BYTES", 0)
    stored = data.collate(examples)
    assert isinstance(stored.frames, StoredClips)
    assert [stored.frames.size(dim) for dim in (0, 1, 2, 3, -1)] == [*whole.frames.shape[:4], 16]
    for batch in (whole, stored):
        with torch.inference_mode():
            found = module.score(batch)
        torch.testing.assert_close(found.logits, expected.logits, rtol=1e-5, atol=1e-6)
        if expected.weights is not None:
            assert found.weights is not None
            torch.testing.assert_close(found.weights, expected.weights, rtol=1e-5, atol=1e-6)
    results = [module.predict_step(batch, 0) for batch in (whole, stored)]
    assert [each.get("label") for each in results[0]] == [each.get("label") for each in results[1]]
    assert [each.get("error") for each in results[1]].count("the file is empty") == 1
    assert module.sample_figure(data.collate([each for each in examples if each.clips])).axes


def test_training_batches_are_never_left_in_the_cache(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients need all feature maps at once, and augmented frames are in no cache."""
    monkeypatch.setattr(clip_data, "MOST_BYTES", 0)
    data, _ = examples_in(clips, SamplingConfig(kind="all"))
    items = list_items(clips / "in")[:2]
    examples = data.examples_of(items, data.read(items).contents, [0, 0], training=True)
    assert isinstance(data.collate([examples.fetch(0, 0)]).frames, torch.Tensor)


def test_memory_does_not_grow_with_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's and numpy's own peak, from the file to the logits, for 150 and for 900 frames of 64 x 64."""
    monkeypatch.setattr(clip_data, "MOST_BYTES", 1 << 20)
    monkeypatch.setattr(network, "PIXELS_AT_ONCE", 1 << 16)
    module, peaks = module_of(), []
    for count in (150, 900):
        path = write_long(tmp_path / f"{count}.mp4", frames=count)
        sampling = SamplingConfig(kind="all")
        data = ClipData(train="x", dataset="files", size=64, cache=str(tmp_path), sampling=sampling)
        gc.collect()
        tracemalloc.start()
        examples = data.load_inputs([str(path)])
        with torch.inference_mode():
            assert module.score(data.collate([examples.fetch(0, 0)])).logits.shape == (1, 2)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + (1 << 20), peaks
    assert peaks[1] < 900 * 64 * 64 * 3 / 2


@pytest.mark.slow
def test_predict_on_ten_thousand_frames_stays_below_two_gigabytes(tmp_path: Path) -> None:
    """Two short files beside it keep their results."""
    for label in ("a", "b"):
        for number in range(5):
            write_long(tmp_path / "in" / label / f"{number}.mp4", frames=4)
    files = [tmp_path / "in" / "a" / "0.mp4", write_long(tmp_path / "long.mp4", frames=10_000, size=64)]
    files = [*files, tmp_path / "in" / "b" / "0.mp4"]
    cache = ("--data.cache", str(tmp_path / "cache"))
    fit = run("fit", "--domain", "video", *QUIET, "--runs", tmp_path, "--name", "x", "--data.dataset", "files", *cache,
              "--data.train", tmp_path / "in", "--data.sampling.kind", "all", "--trainer.max_epochs", "1")  # fmt: skip
    assert fit.status == 0, fit.err
    code = (
        "import resource, sys, domains; from suite.cli import CONFIGS, main\n"
        "main('predict', available=domains.available, load=domains.load, configs=CONFIGS, argv=sys.argv[1:])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    command = [sys.executable, "-c", code, "--checkpoint", str(tmp_path / "video" / "x"), *cache, "--format", "jsonl"]
    ran = subprocess.run([*command, *map(str, files)], capture_output=True, text=True, check=False, timeout=900)
    assert ran.returncode == 0, ran.stderr
    *lines, peak = ran.stdout.splitlines()
    assert [json.loads(line)["input"] for line in lines] == list(map(str, files))
    assert int(peak) < 2_000_000, peak  # kilobytes
