"""``finetune`` as a command: what it takes over, what it leaves behind, and what it refuses."""

import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

import domains
from suite.domain import Domain, Task
from suite.finetune import Source
from suite.layer_groups import FinetuneConfig
from tests import toy
from tests.commands import PINNED, QUIET, TOY_CONFIGS, Ran, assert_one_line, pairs_of, run, trained, write_table
from tests.finetuned import run_in, source_of
from tests.test_resume import DOMAIN_FLAGS
from tests.toy.data import SineData
from tests.toy.model import SineModule

TOY = ("--trainer.max_epochs", 1, *QUIET)


def tune_toy(*argv: Any, source: Any = None) -> Ran:
    return run_in("toy", "finetune", *TOY, "--source", source or source_of("toy", []), *argv)


def checkpoint_of(folder: Path, name: str = "best.ckpt") -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / name, weights_only=True)


def test_a_run_says_and_keeps_where_it_came_from(tmp_path: Path) -> None:
    source = source_of("toy", ["--model.hidden_size=5"])
    policy = ("--finetune.unfreeze=steps", "--finetune.unfreeze_every=3", "--data.size=40")
    ran = tune_toy("--runs", tmp_path, "--name=a", *policy, source=source.parent.parent)
    assert ran.status == 0, ran.err
    folder = tmp_path / "toy" / "a"
    first, second, *rest = ran.err.splitlines()
    assert first.startswith(f"Source {source} (next_value, step 8, SHA-256 ")
    assert second.split() == ["loaded", "6", "encoder.layers", "(4),", "output.weight,", "output.bias"]
    assert "epoch 1, step 0: training output; frozen: encoder" in rest
    assert "epoch 1, step 3: training encoder, output" in rest
    note = json.loads(source.with_name("best.ckpt.sha256").read_text())
    record = checkpoint_of(folder)["suite"]
    assert record["source"] == {
        "path": str(source), "sha256": note["sha256"], "domain": "toy", "task": "next_value", "step": 8, "source": None,
    }  # fmt: skip
    written = json.loads((folder / "source.json").read_text())
    assert sorted(written.pop("weights")["loaded"]) == sorted(torch.load(source, weights_only=True)["state_dict"])
    assert written == record["source"]
    # The architecture is the source's; what was asked for here is not.
    assert record["settings"]["model"]["hidden_size"] == 5
    assert record["settings"]["data"]["size"] == 40
    assert "Next" in ran.out
    assert f"scripts/predict.py --checkpoint {folder}" in ran.out


def test_its_checkpoint_evaluates_and_predicts_without_the_source(tmp_path: Path) -> None:
    copied = tmp_path / "copied.ckpt"
    shutil.copyfile(source_of("toy", []), copied)
    assert tune_toy("--runs", tmp_path, "--name=a", source=copied).status == 0
    copied.unlink()
    best = tmp_path / "toy" / "a" / "checkpoints" / "best.ckpt"
    for verb, stdin in (("evaluate", None), ("predict", b"x\n")):
        ran = run(verb, "--checkpoint", best, stdin=stdin, application=toy, configs=TOY_CONFIGS)
        assert ran.status == 0, ran.err
        assert ran.lines


def test_its_config_gives_the_same_run_and_a_tuned_model_can_be_tuned(tmp_path: Path) -> None:
    policy = ("--finetune.unfreeze=epochs", "--finetune.lr_factor=0.5", "--trainer.max_epochs=2")
    assert tune_toy("--runs", tmp_path, "--name=a", *policy).status == 0
    config = tmp_path / "toy" / "a" / "config.yaml"
    given = yaml.safe_load(config.read_text())
    assert given["finetune"]["unfreeze"] == "epochs"
    assert given["source"] == str(source_of("toy", []))
    assert run_in("toy", "finetune", "-c", config, "--runs", tmp_path, "--name", "b").status == 0
    states = [checkpoint_of(tmp_path / "toy" / name, "last.ckpt")["state_dict"] for name in "ab"]
    assert all(torch.equal(weight, states[1][key]) for key, weight in states[0].items())
    assert tune_toy("--runs", tmp_path, "--name=c", source=tmp_path / "toy" / "a").status == 0
    record = checkpoint_of(tmp_path / "toy" / "c")["suite"]["source"]
    assert record["source"] == checkpoint_of(tmp_path / "toy" / "a")["suite"]["source"]


def test_help_and_print_config_speak_of_the_source() -> None:
    ran = run_in("toy", "finetune", "--help")
    assert ran.status == 0
    assert ran.out.startswith("usage: finetune.py --domain NAME --source CHECKPOINT")
    assert all(f"--finetune.{name}" in ran.out for name in ("unfreeze", "lr_factor", "allow_missing"))
    ran = tune_toy("--print_config", source=source_of("toy", ["--model.hidden_size=5"]))
    assert ran.status == 0
    assert yaml.safe_load(ran.out)["model"]["hidden_size"] == 5


def test_rates_and_groups_are_followed(tmp_path: Path) -> None:
    flags = ("--finetune.unfreeze=steps", "--finetune.unfreeze_every=4", "--trainer.log_every_n_steps=1")
    rates = ("--optim.lr=0.04", "--optim.schedule=constant", "--finetune.lr_factor=0.25")
    assert tune_toy("--runs", tmp_path, "--name=a", *flags, *rates).status == 0
    with (tmp_path / "toy" / "a" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/lr"]]
    assert [float(row["train/layer_groups"]) for row in rows] == [1.0] * 4 + [2.0] * 4
    assert {float(row["train/lr"]) for row in rows} == {0.04}
    groups = checkpoint_of(tmp_path / "toy" / "a")["optimizer_states"][0]["param_groups"]
    assert [group["highest_lr"] for group in groups] == [0.04, 0.04, 0.01, 0.01]


@pytest.mark.parametrize("name", domains.available())
def test_every_domain_goes_on_from_its_own_checkpoint(name: str, tmp_path: Path) -> None:
    flags = DOMAIN_FLAGS.get(name, [])
    source = source_of(name, flags)
    ran = run_in(name, "finetune", "--source", source, *flags, *TOY, "--runs", tmp_path, "--name", "a",
                 "--finetune.unfreeze=steps", "--optim.lr=1e-9", "--optim.warmup_steps=0")  # fmt: skip
    assert ran.status == 0, ran.err
    before, after = torch.load(source, weights_only=True), checkpoint_of(tmp_path / name / "a", "last.ckpt")
    for key, weight in before["state_dict"].items():  # at this rate nothing but the source can be seen
        torch.testing.assert_close(after["state_dict"][key], weight, rtol=1e-4, atol=1e-6)
    assert after["suite"]["source"]["path"] == str(source)


class Shaper(SineModule):
    """Another task on the same encoder: the head has two numbers, and a name of its own."""

    fresh_keys = ("shape.*",)

    def __init__(
        self, assets: dict[str, Any], *, hidden_size: int = 3, width: int = 2, dropout: str = "no", optim: Any = None
    ) -> None:
        super().__init__(assets, hidden_size=hidden_size, optim=optim)
        del self.output
        self.shape = nn.Linear(hidden_size, width)

    def layer_groups(self) -> list[tuple[str, list[nn.Module]]]:
        return [("encoder", [self.encoder]), ("shape", [self.shape])]

    def adapt_source(self, state_dict: dict[str, Tensor], source_assets: dict[str, Any]) -> dict[str, Tensor]:
        return {key: weight for key, weight in state_dict.items() if not key.startswith("output")}

    def forward(self, batch: Any) -> Tensor:
        encoded = self.encoder(batch.values[:, :-1].unsqueeze(2), batch.lengths)
        return self.shape(encoded.outputs).mean(dim=2)


class Normed(SineModule):
    """With statistics, and a draw, in the lower group."""

    def __init__(self, assets: dict[str, Any], *, hidden_size: int = 8, optim: Any = None) -> None:
        super().__init__(assets, hidden_size=hidden_size, optim=optim)
        self.norm, self.drop = nn.BatchNorm1d(hidden_size), nn.Dropout(0.5)

    def layer_groups(self) -> list[tuple[str, list[nn.Module]]]:
        return [("encoder", [self.encoder, self.norm, self.drop]), ("output", [self.output])]

    def forward(self, batch: Any) -> Tensor:
        outputs = self.encoder(batch.values[:, :-1].unsqueeze(2), batch.lengths).outputs
        return self.output(self.drop(self.norm(outputs.transpose(1, 2)).transpose(1, 2))).squeeze(2)


def application_of(**tasks: Task) -> Any:
    domain = Domain(name="toy", tasks={**toy.DOMAIN.tasks, **tasks}, default="next_value")
    return SimpleNamespace(available=toy.available, load=lambda name: domain)


@pytest.mark.parametrize(
    ("policy", "steps"),
    [
        (("--finetune.groups=1",), 0),
        (("--finetune.unfreeze=steps", "--finetune.unfreeze_every=5"), 3 + 8),
        (("--finetune.batch_norm=fixed",), 0),
        ((), 16),
    ],
)
def test_statistics_move_only_with_their_group(policy: tuple[str, ...], steps: int, tmp_path: Path) -> None:
    """Validation in the middle of epochs, and at their ends, turns the modes of modules over: it must not matter."""
    application = application_of(next_value=Task(module=Normed, data=SineData))
    common = ("--domain", "toy", *QUIET, "--runs", tmp_path, "--trainer.max_epochs=2")
    validated = (*common, "--trainer.val_check_interval=0.5", "--trainer.num_sanity_val_steps=1")
    ran = run("fit", *common, "--name=source", application=application, configs=TOY_CONFIGS)
    assert ran.status == 0, ran.err
    source = ("--source", tmp_path / "toy" / "source" / "checkpoints" / "last.ckpt")
    ran = run("finetune", *validated, *source, *policy, "--name=a", application=application, configs=TOY_CONFIGS)
    assert ran.status == 0, ran.err
    states = [checkpoint_of(tmp_path / "toy" / name, "last.ckpt")["state_dict"] for name in ("source", "a")]
    counts = [int(state["norm.num_batches_tracked"]) for state in states]
    assert counts == [16, 16 + steps]
    assert torch.equal(states[0]["norm.running_mean"], states[1]["norm.running_mean"]) == (steps == 0)


def test_another_task_takes_over_what_fits(tmp_path: Path) -> None:
    application = application_of(shape=Task(module=Shaper, data=SineData))
    (tmp_path / "toy").mkdir()
    default = (TOY_CONFIGS / "toy" / "default.yaml").read_text()
    (tmp_path / "toy" / "default.yaml").write_text(default)
    (tmp_path / "toy" / "shape.yaml").write_text(default.replace("next_value", "shape"))
    source = source_of("toy", ["--model.hidden_size=6"])
    ran = run(
        *("finetune", "--domain", "toy", "--task", "shape", "--source", source, *TOY, "--runs", tmp_path),
        *("--name", "a", "--finetune.groups", 1),
        application=application,
        configs=tmp_path,
    )
    assert ran.status == 0, ran.err
    state = checkpoint_of(tmp_path / "toy" / "a", "last.ckpt")
    # The size of the encoder is taken over; dropout, which is of another type here, is not.
    assert state["suite"]["settings"]["model"] == {"hidden_size": 6, "width": 2, "dropout": "no"}
    assert state["suite"]["settings"]["task"] == "shape"
    before = torch.load(source, weights_only=True)["state_dict"]
    encoder = [key for key in before if key.startswith("encoder")]
    assert all(torch.equal(before[key], state["state_dict"][key]) for key in encoder), "frozen for good"
    weights = json.loads((tmp_path / "toy" / "a" / "source.json").read_text())["weights"]
    assert weights["missing"] == ["shape.weight", "shape.bias"]
    assert weights["left_out"] == ["output.bias", "output.weight"]
    assert weights["loaded"] == encoder


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (("--model.hidden_size=9",), ("5 resized", "model.hidden_size (8 there, 9 here)", "allow_resized")),
        (("--finetune.groups=7",), ("finetune.groups is 7", "encoder, output")),
        (("--finetune.unfreeze=weeks",), ("finetune.unfreeze", "weeks", "epochs")),
        (("--finetune.unfreze=epochs",), ("--finetune.unfreze", "did you mean --finetune.unfreeze")),
        (("--finetune.unfreeze_every=3",), ("finetune.unfreeze_every is 3", "not at_once")),
        (("--resume", "auto"), ("no run under",)),
    ],
)
def test_what_cannot_be_meant_is_one_line(flags: tuple[str, ...], parts: tuple[str, ...], tmp_path: Path) -> None:
    resumed = "--resume" in flags
    ran = tune_toy("--runs", tmp_path, *([] if resumed else ["--name=a"]), *flags)
    assert_one_line(ran, 1 if resumed else 2, *parts)
    assert not (tmp_path / "toy").exists(), "no run was begun"


@pytest.mark.parametrize("pattern", ["*", "*.bias", '["output.*", "*.rnn.*"]', "encoder.layers.[0].rnn.*"])
def test_declarations_on_the_command_line(pattern: str, tmp_path: Path) -> None:
    ran = tune_toy("--finetune.allow_resized", pattern, "--model.hidden_size=9", "--runs", tmp_path, "--name=a")
    # Whatever is declared, something of the source has to fit: of this model the last bias alone does.
    named = {"*": 0, "*.bias": 5, '["output.*", "*.rnn.*"]': 0, "encoder.layers.[0].rnn.*": 1}[pattern]
    if named:
        assert_one_line(ran, 2, f"{named} resized")
        return
    assert ran.status == 0, ran.err
    assert json.loads((tmp_path / "toy" / "a" / "source.json").read_text())["weights"]["loaded"] == ["output.bias"]


def test_a_source_is_needed_and_has_to_be_whole(tmp_path: Path) -> None:
    assert_one_line(run_in("toy", "finetune", *TOY, "--runs", tmp_path), 2, "--source is missing")
    assert_one_line(tune_toy(source=tmp_path / "none.ckpt"), 1, "none.ckpt: there is no such checkpoint")
    foreign = tmp_path / "foreign.ckpt"
    torch.save({"weight": torch.zeros(1)}, foreign)
    assert_one_line(tune_toy(source=foreign), 1, "foreign.ckpt: not a checkpoint of this suite")
    foreign.write_text("no checkpoint")
    assert_one_line(tune_toy(source=foreign), 1, "foreign.ckpt: cannot be read")
    damaged = tmp_path / "damaged.ckpt"
    for suffix in ("", ".sha256"):
        shutil.copyfile(f"{source_of('toy', [])}{suffix}", f"{damaged}{suffix}")
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    assert_one_line(tune_toy(source=damaged), 1, "damaged.ckpt: damaged")


def changed(path: Path, name: str) -> Path:
    """A copy of the toy source with something wrong inside."""
    checkpoint = torch.load(source_of("toy", []), weights_only=True)
    if name == "task":
        checkpoint["suite"]["settings"]["task"] = "drawing"
    elif name == "weights":
        checkpoint["state_dict"] = [1, 2]
    elif name == "settings":
        del checkpoint["suite"]["settings"]["model"]
    else:
        checkpoint["state_dict"]["output.bias"][0] = float("inf")
    torch.save(checkpoint, path)
    return path


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("task", "domain or task is not known"), ("weights", "holds no weights"), ("settings", "settings lack model"),
        ("values", "the source's weights are not finite in output.bias"),
    ],
)  # fmt: skip
def test_a_source_with_something_wrong_inside(name: str, problem: str, tmp_path: Path) -> None:
    path = changed(tmp_path / "changed.ckpt", name)
    assert_one_line(tune_toy("--runs", tmp_path, source=path), 1, "changed.ckpt: ", problem)


def test_a_source_of_another_domain_is_refused(tmp_path: Path) -> None:
    load = {"toy": toy.DOMAIN, "translation": domains.load("translation")}
    both = SimpleNamespace(available=lambda: sorted(load), load=lambda name: load[name])
    ran = run("finetune", "--domain", "translation", "--source", source_of("toy", []), *QUIET, application=both)
    assert_one_line(ran, 2, "is of --domain toy, not of translation")


def test_a_run_of_fit_is_not_gone_on_with(tmp_path: Path) -> None:
    source = source_of("toy", [])
    ran = run_in("toy", "finetune", "--resume", source, *QUIET)
    assert_one_line(ran, 2, "began with fit.py")
    assert tune_toy("--runs", tmp_path, "--name=a", "--finetune.lr_factor=0.5").status == 0
    again = tune_toy("--runs", tmp_path, "--resume", tmp_path / "toy" / "a", "--finetune.lr_factor=0.4")
    assert_one_line(again, 2, "finetune.lr_factor (was 0.5, now 0.4)")


def test_the_settings_reach_weights_and_biases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import suite.fitting

    seen: list[dict[str, Any]] = []
    build = suite.fitting.build_logger

    def record(*args: Any, settings: dict[str, Any], **kwargs: Any) -> Any:
        seen.append(settings)
        return build(*args, settings=settings, **kwargs)

    monkeypatch.setattr(suite.fitting, "build_logger", record)
    assert tune_toy("--runs", tmp_path, "--name=a", "--finetune.unfreeze=epochs").status == 0
    assert seen[0]["finetune"]["unfreeze"] == "epochs"
    assert seen[0]["source"]["path"] == str(source_of("toy", []))
    assert len(seen[0]["source"]["sha256"]) == 64


def tune_translation(folder: Path, verb: str, *argv: Any, size: int = 60) -> Ran:
    """Fine-tune the small trained run on other sentences, which bring words that it has not seen."""
    pairs = pairs_of("train", 460)[400:]
    train = write_table(folder / "other.tsv", [(f"Yesterday {a}", f"Gestern {b}") for a, b in pairs][:size])
    val = write_table(folder / "val.tsv", [(f"Yesterday {a}", f"Gestern {b}") for a, b in pairs_of("validation", 30)])
    files = ("--data.dataset=files", "--data.train", train, "--data.val", val, "--data.test", val)
    common = (*files, *QUIET, "--runs", folder, "--optim.name=adamw", "--optim.lr=0.01", "--trainer.max_epochs=3")
    batches = ("--data.batch_size=20", "--data.max_tokens=null", "--decoding.beam_size=1")
    return run_in("translation", verb, *common, *batches, *argv)


def loss_of(ran: Ran) -> float:
    assert ran.status == 0, ran.err
    return next(float(line.split()[1]) for line in ran.lines if line.startswith("  loss"))


def test_translation_fine_tunes_on_other_sentences(tmp_path: Path) -> None:
    source = ("--source", trained(), "--optim.warmup_steps=0", "--optim.schedule=slanted_triangular")
    gradual = ("--finetune.unfreeze=epochs", "--finetune.lr_factor=0.5")
    tuned = tune_translation(tmp_path, "finetune", *source, *gradual, "--name=tuned")
    assert "source vocabulary: " in tuned.err
    assert " taken over by name" in tuned.err
    assert "frozen: source_embedding, encoder, decoder" in tuned.err
    settings = yaml.safe_load((tmp_path / "translation" / "tuned" / "config.yaml").read_text())
    old = yaml.safe_load((trained() / "config.yaml").read_text())
    assert settings["model"] == old["model"]
    assert settings["data"]["vocabulary"] == old["data"]["vocabulary"], "what decides the vocabulary is taken over"
    kept = tune_translation(tmp_path, "finetune", *source, "--finetune.assets=source", "--name=kept")
    assert "vocabulary: " not in kept.err
    model = ("--model.embedding_size=32", "--model.encoder.hidden_size=32", "--model.decoder.hidden_size=48")
    scratch = tune_translation(
        tmp_path, "fit", *PINNED[:8], *model, "--optim.schedule=cosine", "--data.vocabulary.size=300",
        "--data.vocabulary.level=bpe", "--data.vocabulary.joint=true", "--name=scratch",
    )  # fmt: skip
    # As seen: 2.2, 4.9 and 5.7. Sixty sentences give subwords of their own, few of which the source has.
    assert loss_of(tuned) < 0.92 * loss_of(scratch)
    assert loss_of(kept) < 0.5 * loss_of(scratch)
    assets = [checkpoint_of(tmp_path / "translation" / name)["suite"]["assets"] for name in ("kept", "tuned")]
    assert assets[0] == checkpoint_of(trained())["suite"]["assets"] != assets[1]


def test_new_tokens_begin_as_the_mean(tmp_path: Path) -> None:
    flags = ("--source", trained(), "--optim.lr=1e-12", "--optim.warmup_steps=0", "--name=a")
    ran = tune_translation(tmp_path, "finetune", *flags, size=20)
    assert ran.status == 0, ran.err
    old, new = checkpoint_of(trained()), checkpoint_of(tmp_path / "translation" / "a", "last.ckpt")
    before, after = ([*each["suite"]["assets"]["source"]["pieces"]] for each in (old, new))
    assert set(after) - set(before)
    for key in ("network.source_embedding.weight", "network.target_embedding.weight", "network.output_bias"):
        rows, found = old["state_dict"][key], new["state_dict"][key]
        for index, piece in enumerate(after):
            expected = rows[before.index(piece)] if piece in before else rows[4:].mean(dim=0)
            torch.testing.assert_close(found[index], expected, rtol=1e-4, atol=1e-6)


def test_own_files_are_needed_even_with_the_assets_of_a_source(tmp_path: Path) -> None:
    ran = run_in("translation", "finetune", "--source", trained(), "--data.dataset=files", "--finetune.assets=source",
                 "--runs", tmp_path, *QUIET)  # fmt: skip
    assert_one_line(ran, 2, "--data.dataset files needs --data.train")


def test_how_the_source_divided_and_augmented_its_data_stays_with_it() -> None:
    tasks = domains.load("video").tasks
    data = {"held_out": 0.3, "folds": 4, "fold": 1, "augment": {"shift": 4}, "size": 16, "dataset": "cifar10"}
    source = Source(
        FinetuneConfig(), {}, tasks["image_classification"], settings={"model": {}, "data": data}, assets={}, state={}
    )
    for task in tasks.values():
        assert source.defaults(task)["data"] == {"size": 16}
