"""A given setting without effect is refused: which ones, in which command, and what a recipe may hold."""

import dataclasses
import inspect
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

import domains
from suite.cli import CONFIGS
from suite.domain import Task
from suite.effects import Given, declared, find_unused
from suite.layer_groups import FinetuneConfig
from suite.optim import OptimConfig
from suite.parser import SuiteParser, recipes_first
from suite.tracking import TrackingConfig
from suite.verb_parsers import default_recipe, fit_parser, run_needs
from tests.commands import QUIET, assert_one_line, run

TASKS = [(name, task) for name in domains.available() for task in domains.load(name).tasks]
FILES = ("--data.dataset", "files", "--data.train")


@cache
def parser_of(domain: str, task: str, verb: str) -> SuiteParser:
    loaded = domains.load(domain)
    return fit_parser(loaded, task, defaults=default_recipe(loaded, task, CONFIGS), verb=verb)


def unused(domain: str, task: str | None, *words: Any, verb: str = "fit", decided: tuple[str, ...] = ()) -> Any:
    """What ``fit`` with ``words`` would refuse and report, without running it."""
    loaded = domains.load(domain)
    name = task or loaded.default
    parser = parser_of(domain, name, verb)
    line = [str(word) for word in words]
    config = parser.parse_args(recipes_first(line))
    return find_unused(dict(config.items()), parser.given(line, decided=decided), run_needs(loaded.task(name)))


VIDEO, TEXT, LM = ("video", None), ("text", None), ("text", "language_model")
TRANSLATION, AUDIO, IMAGES = ("translation", None), ("audio", None), ("video", "image_classification")


@pytest.mark.parametrize(
    ("where", "words", "cure"),
    [
        (VIDEO, "--data.sampling.num_frames 8", "data.sampling.kind is all: set data.sampling.kind to uniform"),
        (VIDEO, "--data.sampling.num_frames 16", "set data.sampling.kind to uniform or dense"),
        (VIDEO, "--data.sampling.kind uniform --data.sampling.stride 2", "to dense or all"),
        (VIDEO, "--data.sampling.unit time --data.sampling.stride 2", "set data.sampling.unit to frame"),
        (VIDEO, "--data.sampling.fps 5", "set data.sampling.unit to time"),
        (VIDEO, "--data.sampling.test_clips 2", "to uniform or dense"),
        (VIDEO, "--model.head average --model.encoder.hidden_size 5", "set model.head to recurrent"),
        (VIDEO, "--model.head average --model.encoder.options.zoneout 0.1", "set model.head to recurrent"),
        (VIDEO, "--model.head average --model.pooling max", "set model.head to recurrent"),
        (VIDEO, "--model.cnn.kind resnet18 --model.cnn.width 8", "set model.cnn.kind to small or vgg"),
        (VIDEO, "--model.cnn.kind resnet18 --model.cnn.norm batch", "set model.cnn.kind to small or vgg"),
        (VIDEO, "--model.cnn.frozen_statistics true", "set model.cnn.norm to batch"),
        (VIDEO, "--data.label_column kind", "with a table"),
        (VIDEO, "--data.held_out 0.3", "choose a data.dataset"),
        (VIDEO, "--data.fold 1", "data.folds is not set: set data.folds"),
        (IMAGES, "--data.dataset cifar10 --data.sample_size 10", "set data.dataset to sample"),
        (TEXT, f"{' '.join(FILES)} a.csv --data.sample_size 10", "set data.dataset to sample"),
        (TEXT, f"{' '.join(FILES)} tests --data.label_column kind", "with a table"),
        (TEXT, f"{' '.join(FILES)} a.csv --data.val b.csv --data.test c.csv --data.held_out 0.2", "leave data.val or"),
        (TEXT, "--data.dataset sst2 --data.held_out 0.2", "data.held_out is 0.2, which has no effect"),
        (TEXT, "--model.dropout 0 --model.encoder.options.variational true", "input_dropout"),
        (LM, f"{' '.join(FILES)} README.md --data.text_column words", "with a table"),
        (LM, "--decoding.temperature 0 --decoding.top_k 5", "set decoding.temperature above 0"),
        (LM, "--decoding.temperature 0 --decoding.draw 5", "set decoding.temperature above 0"),
        (TRANSLATION, "--model.num_heads 2", "set model.attention to multihead"),
        (TRANSLATION, "--decoding.beam_size 1 --decoding.length_penalty 2", "set decoding.beam_size above 1"),
        (TRANSLATION, f"{' '.join(FILES)} README.md --data.columns [a,b]", "with a table"),
        (TRANSLATION, f"{' '.join(FILES)} a.csv --data.source_language fr", "sample or multi30k"),
        (AUDIO, "--data.mel.hop 32", "set data.mel.bands above 0"),
        (AUDIO, "--model.local_channels 8", "set data.mel.bands above 0"),
        (AUDIO, "--data.conditions [] --model.condition_size 8", "name conditions in data.conditions"),
        (AUDIO, "--data.dataset fsdd --data.sample_minutes 3", "set data.dataset to sample"),
        (TEXT, "--optim.momentum 0.9", "optim.name is adamw: set optim.name to sgd or rmsprop"),
        (TEXT, "--optim.name adam --optim.nesterov true", "set optim.name to sgd"),
        (TEXT, "--optim.name sgd --optim.beta1 0.5", "set optim.name to adam or adamw"),
        (TEXT, "--optim.name sgd --optim.eps 1e-3", "adagrad, rmsprop, adam or adamw"),
        (TEXT, "--optim.schedule one_cycle --optim.warmup_steps 5", "constant, linear, cosine or plateau"),
        (TEXT, "--optim.schedule constant --optim.floor 0.1", "linear or cosine"),
        (TEXT, "--optim.plateau_patience 3", "set optim.schedule to plateau"),
        (TEXT, "--trainer.limit_val_batches 0 --patience 3", "set trainer.limit_val_batches above 0"),
        (TEXT, "--trainer.limit_val_batches 0 --trainer.val_check_interval 3", "set trainer.limit_val_batches"),
        (TEXT, "--trainer.min_epochs 3", "set patience or trainer.max_time"),
        (TEXT, "--trainer.limit_predict_batches 3", "training predicts nothing: leave"),
        (TEXT, "--trainer.gradient_clip_val 0 --trainer.gradient_clip_algorithm value", "gradient_clip_val above 0"),
        (TEXT, "--tracking.mode disabled --tracking.project mine", "set tracking.mode to offline or online"),
    ],
)  # fmt: skip
def test_a_flag_without_effect_is_refused(where: tuple[str, str | None], words: str, cure: str) -> None:
    problems = unused(*where, *words.split()).problems
    (name, text), *others = problems.items()
    assert not others
    assert name == [word for word in words.split() if word.startswith("--")][-1].removeprefix("--")
    assert text.startswith(f"{name} is ")
    assert "which has no effect because " in text
    assert cure in text
    assert text.endswith(f"leave {name} out")


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (VIDEO, "--data.sampling.kind uniform --data.sampling.num_frames 8"),
        (VIDEO, "--data.sampling.kind dense --data.sampling.stride 2 --data.sampling.test_clips 2"),
        (VIDEO, "--data.sampling.unit time --data.sampling.fps 5"),
        (VIDEO, "--data.dataset video_fight --data.held_out 0.2"),
        (VIDEO, "--data.folds 3 --data.fold 1 --data.held_out 0.2"),
        (VIDEO, "--model.cnn.kind resnet18 --model.cnn.frozen_statistics true"),
        (TEXT, f"{' '.join(FILES)} a.csv --data.val b.csv --data.held_out 0.2 --data.label_column kind"),
        (TEXT, f"{' '.join(FILES)} folder --data.test none.tsv --data.label_column kind"),
        (TEXT, "--optim.name sgd"),
        (TEXT, "--optim.name adam --optim.momentum 0"),
        (TEXT, "--optim.schedule one_cycle --optim.warmup_steps 0"),
        (TEXT, "--model.encoder.num_layers 2 --model.encoder.options.variational true"),
        (TEXT, "--patience 3 --trainer.min_epochs 3"),
        (TEXT, "--trainer.limit_val_batches 0 --samples 0"),
        (LM, f"{' '.join(FILES)} [a.csv,b.txt] --data.text_column words"),
        (LM, "--data.folds 3 --data.held_out 0.1"),
        (TRANSLATION, "--model.attention multihead --model.num_heads 2 --optim.name sgd"),
        (TRANSLATION, "--decoding.length_penalty 2"),
        (AUDIO, "--data.mel.bands 8 --data.mel.hop 32 --model.local_channels 8"),
        (AUDIO, "--data.conditions [pitch] --model.condition_size 8"),
    ],
)
def test_a_flag_with_an_effect_passes(where: tuple[str, str | None], words: str) -> None:
    assert not unused(*where, *words.split()).problems


def write(path: Path, **settings: Any) -> Path:
    path.write_text(yaml.safe_dump(settings))
    return path


def test_what_a_recipe_gives_counts_as_given(tmp_path: Path) -> None:
    recipe = write(tmp_path / "r.yaml", data={"sampling": {"num_frames": 16}})
    assert "data.sampling.num_frames" in unused("video", None, "-c", recipe).problems
    ran = run("fit", "--domain=video", "-c", recipe, "--runs", tmp_path)
    assert_one_line(ran, 2, "data.sampling.num_frames is 16, which has no effect because data.sampling.kind is all")
    assert not (tmp_path / "video").exists()


def test_a_choice_that_a_flag_undoes_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = CONFIGS / "video" / "video_fight.yaml"
    found = unused("video", None, "-c", recipe, "--model.head", "average")
    assert not found.problems
    assert "model.encoder.cell" in found.undone["model.head is average"]
    flag = unused("video", None, "-c", recipe, "--model.head", "average", "--model.encoder.cell", "lstm")
    assert list(flag.problems) == ["model.encoder.cell"]


def test_a_recipe_that_contradicts_itself_is_refused_and_one_that_states_defaults_is_not(tmp_path: Path) -> None:
    other = write(tmp_path / "a.yaml", data={"sampling": {"kind": "all", "num_frames": 8}})
    whole = write(tmp_path / "b.yaml", data={"sampling": {"kind": "all", "num_frames": 16}})
    assert unused("video", None, "-c", other).problems
    assert not unused("video", None, "-c", whole).problems


def test_the_config_of_a_run_is_a_recipe(tmp_path: Path) -> None:
    """What a flag switched off in that run is in its config too."""
    stated = {"domain": "text", "task": "classification", "seed": 0, "threads": 1}
    switched_off = {"optim": {"schedule": "constant", "floor": 0.1}}
    recipe = write(tmp_path / "config.yaml", **stated, **switched_off)
    found = unused("text", None, "-c", recipe)
    assert not found.problems
    assert found.undone == {"optim.schedule is constant": ["optim.floor"]}
    by_hand = write(tmp_path / "hand.yaml", **switched_off)
    assert list(unused("text", None, "-c", by_hand).problems) == ["optim.floor"]


def test_the_compared_setting_may_undo_a_flag() -> None:
    words = ("--optim.beta2", "0.9", "--optim.name", "sgd")
    assert unused("text", None, *words).problems
    found = unused("text", None, *words, decided=("optim.name",))
    assert not found.problems
    assert found.undone == {"optim.name is sgd": ["optim.beta2"]}


def test_compare_refuses_a_flag_that_no_value_uses(tmp_path: Path) -> None:
    words = ("--setting", "optim.name", "--values", "sgd", "rmsprop", "--optim.beta2", "0.9", "--runs", tmp_path)
    assert_one_line(run("compare", "--domain=text", *words), 2, "optim.beta2: no effect with any of the values")
    frames = ("--setting", "data.sampling.num_frames", "--values", "4", "8", "--runs", tmp_path)
    assert_one_line(run("compare", "--domain=video", *frames), 2, "data.sampling.num_frames is 4, which has no effect")


def test_fine_tuning_takes_weights_and_vocabularies_from_its_source() -> None:
    source = ("--source", "x")
    found = unused("video", None, *source, "--model.cnn.weights", "w.pt", verb="finetune").problems
    assert "the weights come from --source" in found["model.cnn.weights"]
    words = (*source, "--finetune.assets", "source", "--data.vocabulary.size", "90")
    assert (
        "set finetune.assets to data" in unused("text", None, *words, verb="finetune").problems["data.vocabulary.size"]
    )
    assert not unused("text", None, *source, "--data.vocabulary.size", "90", verb="finetune").problems
    groups = (*source, "--finetune.start_groups", "2")
    assert "finetune.start_groups" in unused("text", None, *groups, verb="finetune").problems


def test_commands_of_checkpoints_refuse_them_too() -> None:
    from tests.commands import trained

    checkpoint = ("--checkpoint", trained())
    flags = ("--beam_size", 1, "--length_penalty", 2)
    assert_one_line(
        run("evaluate", *checkpoint, *flags), 2, "length_penalty is 2.0, which has no effect because beam_size"
    )
    assert_one_line(
        run("predict", *checkpoint, "--data.test", "a.tsv"), 2, "data.test is a.tsv", "predict reads its inputs"
    )
    ran = run("predict", *checkpoint, *flags, "--format", "jsonl", stdin=b"A forest is white.\n")
    assert ran.status == 0, ran  # its score depends on the penalty


@pytest.mark.parametrize(("domain", "name"), TASKS)
def test_declarations_name_settings_that_are_there(domain: str, name: str) -> None:
    loaded = domains.load(domain)
    parser = fit_parser(loaded, name, defaults=None, verb="finetune")
    task: Task = loaded.task(name)
    known = {action.dest for action in parser._actions}
    own = [
        each
        for kind, prefix in ((task.module, "model."), (task.data, "data."))
        for each in declared(kind, prefix, skip=("optim", "decoding"))
    ]
    assert own
    for full, prefix, need in run_needs(task):
        assert full in known, full
        for each in need.names[:1]:
            assert f"{prefix}{each}" in known or each in known, (full, each)


def settings_classes(kind: Any) -> list[type]:
    """The dataclasses that a constructor's arguments are, and theirs."""
    kinds = [each.annotation for each in inspect.signature(kind).parameters.values()]
    inner = [each for each in kinds if isinstance(each, type) and dataclasses.is_dataclass(each)]
    return [*inner, *(deeper for each in inner for deeper in settings_classes(each))]


@pytest.mark.parametrize(("domain", "name"), TASKS)
def test_settings_that_are_default_arguments_are_frozen(domain: str, name: str) -> None:
    task = domains.load(domain).task(name)
    kinds = [*settings_classes(task.module), *settings_classes(task.data), OptimConfig, TrackingConfig, FinetuneConfig]
    kinds += [task.decoding] if task.decoding else []
    for kind in kinds:
        assert kind.__dataclass_params__.frozen, kind  # type: ignore[attr-defined]


def test_values_of_a_run_are_never_given() -> None:
    needs = run_needs(domains.load("video").task(None))
    values = {"data.sampling.kind": "all", "data.sampling.num_frames": 8}
    assert not find_unused(values, Given([{}], {}), needs).problems
    assert find_unused(values, Given([{"data.sampling.num_frames": 8}], {}), needs).problems


def test_diagnose_refuses_what_it_never_does() -> None:
    assert_one_line(run("diagnose", "--domain=text", *QUIET, "--patience", 3), 2, "patience is 3, which has no effect")
