"""The networks of the video domain against plain loops, padding, freezing, and weights from elsewhere."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from domains.video.cnn import CNNConfig, FrameCNN
from domains.video.data import ClipBatch
from domains.video.images import ImageBatch
from domains.video.model import ClipModule, ImageModule
from domains.video.weights import load_weights
from suite.errors import CheckpointError, UsageError
from suite.layer_groups import FinetuneConfig
from suite.recurrent import EncoderConfig, RecurrentOptions
from suite.vocabulary import Labels
from tests.commands import QUIET, run

EXACT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}
MEAN, DEVIATION = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]


def assets(*names: str) -> dict[str, Any]:
    labels = Labels.collect(names or ("a", "b", "c")).state()
    return {"labels": labels, "counts": [5] * len(names or "abc"), "mean": MEAN, "deviation": DEVIATION}


def cnn(**settings: Any) -> CNNConfig:
    return CNNConfig(**{"width": 8, "stages": 2, "grid": 2, "feature_size": 12, **settings})


def clip_module(**settings: Any) -> ClipModule:
    torch.manual_seed(1)
    encoder = EncoderConfig(cell="gru", hidden_size=10, bidirectional=False)
    return ClipModule(assets(), **{"cnn": cnn(), "encoder": encoder, **settings}).double().eval()


def clip_batch(lengths: list[int], *, clips: int = 1, size: int = 16, padding: int = 0) -> ClipBatch:
    torch.manual_seed(2)
    longest = max(lengths) + padding
    frames = torch.randint(0, 256, (len(lengths), longest, 3, size, size), dtype=torch.uint8)
    count = len(lengths) // clips
    names = [f"{number}" for number in range(count)]
    labels = torch.arange(count) % 3
    return ClipBatch(frames, torch.tensor(lengths), labels, list(range(count)), names, [None] * count)


@pytest.mark.parametrize("streams", ["rgb", "difference", "both"])
@pytest.mark.parametrize("head", ["recurrent", "average"])
def test_logits_equal_a_loop_over_clips_and_frames(streams: Any, head: Any) -> None:
    module, batch = clip_module(streams=streams, head=head, pooling="mean"), clip_batch([5, 2, 4])
    found = module(batch)
    for row, length in enumerate(batch.lengths.tolist()):
        steps = []
        for time in range(length):
            frame = batch.frames[row, time].double()
            before = batch.frames[row, max(time - 1, 0)].double()
            seen = {"rgb": frame, "difference": frame - before}
            steps.append(torch.cat([module.network.cnn(name)(seen[name][None])[0] for name in module.network.cnns]))
        features = torch.stack(steps)
        if module.network.encoder is not None:
            features = module.network.encoder(features[None], torch.tensor([length])).outputs[0]
        torch.testing.assert_close(found[row], module.network.output(features.mean(dim=0)), **EXACT)


def test_normalisation_is_part_of_the_network() -> None:
    net = FrameCNN(cnn(norm="none"), mean=MEAN, deviation=DEVIATION).double().eval()
    plain = FrameCNN(cnn(norm="none"), mean=[0.0] * 3, deviation=[1.0] * 3).double().eval()
    weights = {name: value for name, value in net.state_dict().items() if name not in ("mean", "deviation")}
    plain.load_state_dict(weights, strict=False)
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    scaled = (pixels.double() / 255 - torch.tensor(MEAN).double().view(3, 1, 1)) / torch.tensor(DEVIATION).view(3, 1, 1)
    torch.testing.assert_close(net(pixels), plain(scaled * 255), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "concat", "attention"])
def test_what_stands_at_padding_changes_nothing(pooling: Any) -> None:
    module, batch = clip_module(pooling=pooling, streams="both"), clip_batch([5, 2, 4])
    longer = clip_batch([5, 2, 4], padding=3)
    longer.frames[:, :5] = batch.frames
    torch.testing.assert_close(module(longer), module(batch), **EXACT)


def test_batch_statistics_are_of_valid_frames_alone() -> None:
    module = clip_module(cnn=cnn(norm="batch")).train()
    batch = clip_batch([5, 2, 4])
    seen: list[Tensor] = []
    module.network.cnn("rgb").stages[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    module(batch)
    assert seen[0].size(0) == 5 + 2 + 4
    norms = [each for each in module.modules() if isinstance(each, nn.BatchNorm2d)]
    padded = clip_batch([5, 2, 4], padding=4)
    padded.frames[:, :5] = batch.frames
    other = clip_module(cnn=cnn(norm="batch")).train()
    other(padded)
    others = [each for each in other.modules() if isinstance(each, nn.BatchNorm2d)]
    for one, two in zip(norms, others, strict=True):
        torch.testing.assert_close(one.running_mean, two.running_mean, **EXACT)


def test_several_clips_give_the_log_of_their_mean_probability() -> None:
    module, batch = clip_module(), clip_batch([5, 2, 4, 3], clips=2)
    found = module(batch)
    single = module.clip_scores(batch).logits.softmax(dim=1)
    expected = torch.stack([(single[0] + single[1]) / 2, (single[2] + single[3]) / 2])
    torch.testing.assert_close(found.exp(), expected, **EXACT)
    torch.testing.assert_close(module.compute(batch).loss_sum, -expected.log()[[0, 1], batch.labels].sum(), **EXACT)


def test_files_that_cannot_be_read_have_a_result_each() -> None:
    module = clip_module()
    cases: list[tuple[list[int], list[str | None]]] = [([3, 0], [None, "empty"]), ([0, 0], ["cut", "empty"])]
    for lengths, problems in cases:
        batch = clip_batch(lengths)._replace(problems=problems)
        results = module.predict_step(batch, 0)
        assert [each.get("error") for each in results] == problems
        assert [module.lines(each)[0].split("\t")[0] for each in results] == ["0", "1"]


@pytest.mark.parametrize("trained", [0, 1, 3])
def test_frozen_groups_keep_weights_and_statistics(trained: int) -> None:
    config = cnn(norm="batch", stages=3, trained_groups=trained)
    module = clip_module(cnn=config).train()
    before = {name: value.clone() for name, value in module.network.cnns.state_dict().items()}
    optimizer = torch.optim.SGD([each for each in module.parameters() if each.requires_grad], lr=0.5)
    module.compute(clip_batch([5, 2, 4])).loss_sum.backward()
    optimizer.step()
    changed = {name for name, value in module.network.cnns.state_dict().items() if not torch.equal(value, before[name])}
    stages = {name.split(".")[2] for name in changed if ".stages." in name}
    assert stages == {str(number) for number in range(3 - trained, 3)}
    assert any("running_mean" in name for name in changed) == (trained > 0)
    with pytest.raises(UsageError, match="trained_groups is 4, allowed is 0 to 3"):
        clip_module(cnn=cnn(stages=3, trained_groups=4))


def test_frozen_statistics_are_used_in_training() -> None:
    module = clip_module(cnn=cnn(norm="batch", frozen_statistics=True)).train()
    before = module.state_dict()["network.cnns.rgb.stages.0.1.running_mean"].clone()
    batch = clip_batch([5, 2, 4])
    trained = module(batch)
    assert torch.equal(module.state_dict()["network.cnns.rgb.stages.0.1.running_mean"], before)
    torch.testing.assert_close(trained, module.eval()(batch), **EXACT)


def test_resnet_equals_torchvision(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    reference = resnet18(weights=None).eval()
    torch.save(reference.state_dict(), tmp_path / "resnet18.pth")
    net = FrameCNN(CNNConfig(kind="resnet18", grid=1, feature_size=None), mean=MEAN, deviation=DEVIATION).eval()
    load_weights(net, tmp_path / "resnet18.pth")
    assert "left out: fc.weight, fc.bias" in capfd.readouterr().err
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    reference.fc = nn.Identity()
    expected = reference((pixels / 255 - mean.view(3, 1, 1)) / deviation.view(3, 1, 1))
    torch.testing.assert_close(net(pixels), expected, rtol=1e-5, atol=1e-5)
    small = FrameCNN(cnn(), mean=MEAN, deviation=DEVIATION)
    with pytest.raises(CheckpointError, match=r"not of this model.cnn: it lacks stages.1.0.weight"):
        load_weights(small, tmp_path / "resnet18.pth")


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_weights_that_are_none_are_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.pth"):
        load_weights(FrameCNN(cnn(), mean=MEAN, deviation=DEVIATION), path)


@pytest.mark.parametrize("streams", ["rgb", "both"])
def test_the_network_of_pictures_goes_into_clips(streams: Any) -> None:
    torch.manual_seed(3)
    source = ImageModule(assets("x", "y"), cnn=cnn(norm="batch"))
    module = clip_module(streams=streams, cnn=cnn(norm="batch")).float()
    adapted = module.adapt_source(source.state_dict(), source.assets)
    missing, unexpected = module.load_state_dict(adapted, strict=False)
    assert not unexpected
    assert {name.split(".")[1] for name in missing} == {"encoder", "pooling", "output"}
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    for name in module.network.cnns:
        own = module.network.cnn(name).eval()
        assert torch.equal(own.mean.flatten(), torch.tensor(MEAN if name == "rgb" else [0.0] * 3))
        same = own(images) if name == "rgb" else None
        assert same is None or torch.equal(same, source.network.cnn.eval()(images))
    groups = [name for name, _ in module.layer_groups()]
    assert groups == ["stage1", "stage2", "encoder", "output"]
    module.tune(FinetuneConfig(unfreeze="epochs"))


def test_an_output_layer_is_taken_over_for_the_same_labels_alone() -> None:
    source, same = clip_module(), clip_module()
    assert "network.output.weight" in same.adapt_source(source.state_dict(), assets())
    assert "network.output.weight" not in same.adapt_source(source.state_dict(), assets("p", "q", "r"))


def test_image_module_scores_pictures() -> None:
    module = ImageModule(assets(), cnn=cnn(kind="vgg", norm="group")).eval()
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    batch = ImageBatch(images, torch.tensor([0, 2]), [0, 1], ["x", "y"], [None, "cut"])
    expected = module.network.output(module.network.cnn(images))
    torch.testing.assert_close(module(batch), expected)
    assert [("error" in each) for each in module.predict_step(batch, 0)] == [False, True]
    assert module.sample_figure(batch).axes


@pytest.mark.parametrize("name", ["activation_penalty", "temporal_penalty"])
def test_penalties_of_the_encoder_are_part_of_the_training_loss_alone(name: str) -> None:
    batch = clip_batch([3, 2])
    encoder = EncoderConfig(cell="gru", hidden_size=10, bidirectional=False, options=RecurrentOptions(**{name: 10.0}))  # type: ignore[arg-type]
    plain, module = clip_module(dropout=0.0), clip_module(dropout=0.0, encoder=encoder)
    assert torch.equal(plain.compute(batch).loss_sum, module.compute(batch).loss_sum)
    network = module.network.train()
    assert network.encoder is not None
    encoded = network.encoder(network.features(batch.frames, batch.lengths), batch.lengths)
    module.train()
    plain.train()
    added = module.compute(batch).loss_sum - plain.compute(batch).loss_sum
    torch.testing.assert_close(added, network.encoder.penalty(encoded) * 2, **EXACT)
    assert float(added) > 0.01


def test_a_run_begins_with_weights_from_a_file_and_goes_on_without_it(tmp_path: Path) -> None:
    torch.save(resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    flags: tuple[Any, ...] = ("--domain", "video", *QUIET, "--runs", tmp_path, "--model.encoder.hidden_size", 8)
    flags += ("--model.cnn.kind", "resnet18", "--model.cnn.weights", tmp_path / "resnet18.pth", "--data.size", 32)
    flags += ("--data.sample_size", 16, "--data.batch_size", 8, "--data.cache", tmp_path / "cache", "--samples", 0)
    short = ("--trainer.limit_val_batches", 1, "--trainer.limit_test_batches", 1)
    ran = run("fit", *flags, *short, "--name", "a", "--trainer.max_epochs", 1)
    assert ran.status == 0, ran.err
    assert "model.cnn.weights: " in ran.err
    (tmp_path / "resnet18.pth").unlink()
    ran = run("fit", *flags, *short, "--resume", tmp_path / "video" / "a", "--trainer.max_epochs", 2)
    assert ran.status == 0, ran.err
    assert "model.cnn.weights: " not in ran.err


def test_more_stages_than_a_picture_can_be_halved_are_refused_before_the_run() -> None:
    module = clip_module(cnn=cnn(kind="vgg", stages=6))
    module.begin(SimpleNamespace(size=64))
    with pytest.raises(UsageError, match=r"model\.cnn\.stages is 6: .* of data\.size 32 nothing is left"):
        module.begin(SimpleNamespace(size=32))
