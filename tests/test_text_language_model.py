"""The language model: figures against plain loops, continuations, exact resume and two processes with carried state."""

import itertools
import math
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from lightning.pytorch import Trainer

from domains.text.language_data import LanguageData
from domains.text.language_model import LanguageModule
from domains.text.tokens import VocabularyConfig
from suite.errors import DataError, UsageError
from suite.layer_groups import FinetuneConfig
from suite.recurrent import EncoderConfig, RecurrentOptions
from suite.sampling import SamplingConfig
from suite.vocabulary import EOS, Level
from tests.commands import assert_one_line, run
from tests.test_distributed import compare, fit, rows
from tests.test_resume import check

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning")
TEXT = "the owl sat on the branch .\nthe cat , too , looked up .\nnobody spoke for an hour .\n" * 8
FLAGS = ["--task=language_model", "--data.chunk_length=8", "--data.batch_size=16", "--decoding.length=4"]


def data_of(tmp_path: Path, *, level: Level = "word", text: str = TEXT, **settings: Any) -> LanguageData:
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    common: dict[str, Any] = {"dataset": "files", "train": str(tmp_path / "text.txt"), "held_out": 0.2}
    sizes: dict[str, Any] = {"chunk_length": 5, "batch_size": 3, "eval_tracks": 2}
    return LanguageData(**{**common, **sizes, "vocabulary": VocabularyConfig(level=level, size=300), **settings})


def module_of(data: LanguageData, **settings: Any) -> LanguageModule:
    encoder = EncoderConfig(cell="lstm", hidden_size=6, num_layers=2, bidirectional=False)
    return LanguageModule(data.assets, **{"embedding_size": 5, "encoder": encoder, **settings})


def evaluate(module: LanguageModule, data: LanguageData) -> dict[str, float]:
    quiet: Any = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(**quiet, enable_model_summary=False, use_distributed_sampler=False)
    trainer.test(module, data, verbose=False)
    return {name.removeprefix("test/"): float(value) for name, value in trainer.callback_metrics.items()}


@pytest.mark.parametrize("level", ["word", "bpe", "char"])
def test_figures_are_those_of_one_pass_over_the_text(level: Level, tmp_path: Path) -> None:
    data = data_of(tmp_path, level=level, eval_tracks=1)
    module = module_of(data).double()
    figures = evaluate(module, data)
    text = "".join(data.documents("test")) if level == "char" else "\n".join(data.documents("test")) + "\n"
    ids = [EOS]
    for document in data.documents("test"):
        ids += [*data.tokenizer.encode(document), *([] if level == "char" else [EOS])]
    nll, state = 0.0, None
    for before, after in itertools.pairwise(ids):
        with torch.no_grad():
            logits, state = module.eval().step(torch.tensor([before]), state)  # type: ignore[arg-type]
        nll -= float(logits[0].log_softmax(dim=0)[after])
    assert figures["loss"] == pytest.approx(nll / (len(ids) - 1), rel=1e-6)
    assert figures["perplexity"] == pytest.approx(math.exp(nll / (len(ids) - 1)), rel=1e-6)
    assert figures["bits_per_character"] == pytest.approx(nll / math.log(2) / len(text), rel=1e-6)


def test_a_single_text_is_cut_in_order_and_nothing_is_lost(tmp_path: Path) -> None:
    data = data_of(tmp_path, level="char")
    parts = [data.documents(split) for split in ("train", "val", "test")]
    assert "".join(text for part in parts for text in part) == TEXT
    assert len(parts[1][0]) == len(parts[2][0]) == round(0.2 * len(TEXT))


def test_lines_are_documents_and_stand_in_one_split(tmp_path: Path) -> None:
    text = "".join(f"line {number} .\n" for number in range(50))
    data = data_of(tmp_path, text=text)
    parts = [data.documents(split) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [30, 10, 10]
    assert sorted(line for part in parts for line in part) == sorted(text.splitlines())


def test_tables_and_several_files(tmp_path: Path) -> None:
    (tmp_path / "more.csv").write_text('body,other\n"a b\nc",1\nd e,2\n', encoding="utf-8")
    data = data_of(tmp_path, train=[str(tmp_path / "more.csv"), str(tmp_path / "text.txt")], text_column="body")
    documents = [text for split in ("train", "val", "test") for text in data.documents(split)]
    assert {"a b\nc", "d e"} < set(documents)
    assert len(documents) == 26


def test_continuations_do_not_depend_on_their_neighbours(tmp_path: Path) -> None:
    data = data_of(tmp_path)
    module = module_of(data, decoding=SamplingConfig(length=12, temperature=1.0)).double().eval()
    prompts = ["the owl", "", "nobody spoke for an hour . the", "the cat"]
    examples = data.load_inputs(prompts)
    batch = data.collate([examples.fetch(index, 0) for index in range(4)])
    together = module.continue_texts(batch)
    alone = [module.continue_texts(data.collate([examples.fetch(index, 0)]))[0] for index in range(4)]
    assert together == alone
    assert [each["input"] for each in together] == prompts
    other = module_of(data, decoding=SamplingConfig(length=12, temperature=1.0, draw=1)).double().eval()
    other.load_state_dict(module.state_dict())
    assert [each["continuation"] for each in other.continue_texts(batch)] != [each["continuation"] for each in together]


@pytest.mark.parametrize("level", ["word", "char"])
def test_greedy_continuation_is_step_by_step(level: Level, tmp_path: Path) -> None:
    data = data_of(tmp_path, level=level)
    module = module_of(data, decoding=SamplingConfig(length=7, temperature=0.0)).double().eval()
    prompt = "the owl sat"
    found = module.continue_texts(data.collate([data.load_inputs([prompt]).fetch(0, 0)]))[0]
    ids = [EOS, *data.tokenizer.encode(prompt)]
    start = len(ids)
    while len(ids) < start + 7:
        encoded = module._encode(torch.tensor([ids]), torch.tensor([len(ids)]), None)
        logits = module._features(encoded)[0, -1] @ module.output_weight.t() + module.output_bias
        logits[[0, 1, 2]] = -torch.inf
        if int(logits.argmax()) == EOS:
            break
        ids.append(int(logits.argmax()))
    assert data.tokenizer.decode(ids[1:]) == prompt + found["continuation"]


def test_lines_stay_lines() -> None:
    assert LanguageModule.lines({"input": "a\nb", "continuation": " c\r\n"}) == ["a\\nb c\\r\\n"]


def test_output_layer_tied_or_not(tmp_path: Path) -> None:
    data = data_of(tmp_path)
    tied, apart = module_of(data), module_of(data, tie=False)
    assert tied.output_weight is tied.network.embedding.weight
    assert apart.output_weight is not apart.network.embedding.weight
    assert len(list(apart.parameters())) == len(list(tied.parameters())) + 1


@pytest.mark.parametrize("moment", ["on_train_batch_end:5", "on_validation_batch_end:1", "on_train_epoch_start:2"])
def test_goes_on_exactly_with_its_state(moment: str, tmp_path: Path) -> None:
    check("text", moment, tmp_path, first=FLAGS)


def test_goes_on_exactly_inside_an_accumulation_with_workers(tmp_path: Path) -> None:
    flags = [*FLAGS, "--trainer.accumulate_grad_batches=3", "--data.num_workers=2"]
    check("text", "on_train_batch_end:8", tmp_path, first=flags, every=1)


@pytest.mark.distributed
def test_two_processes_equal_one(tmp_path: Path) -> None:
    flags = ["--task=language_model", "--data.chunk_length=8", "--data.eval_tracks=4", "--decoding.length=4"]
    flags.append("--model.state_reset=0")  # each process draws its own
    one = fit("text", "one", tmp_path, ["--data.batch_size=16", *flags])
    two = fit("text", "two", tmp_path, ["--data.batch_size=8", *flags], ranks=2)
    first, second = (torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (one, two))
    assert first["global_step"] == second["global_step"] > 0
    for name, weight in first["state_dict"].items():
        torch.testing.assert_close(second["state_dict"][name], weight, rtol=1e-4, atol=1e-5, msg=name)
    compare(rows(one), rows(two))
    whole, shares = first["carried_state"][0], second["carried_state"]
    for part, *halves in zip(whole, *shares, strict=True):
        for rank, half in enumerate(halves):
            torch.testing.assert_close(half, part[rank::2], rtol=1e-3, atol=1e-4)


def test_errors(tmp_path: Path) -> None:
    data = data_of(tmp_path)
    with pytest.raises(UsageError, match="would see what it has to predict"):
        LanguageModule(data.assets, encoder=EncoderConfig(num_layers=2, bidirectional=True))
    with pytest.raises(UsageError, match=r"data\.chunk_length is 0"):
        data_of(tmp_path, chunk_length=0)
    with pytest.raises(UsageError, match=r"needs --data\.train"):
        LanguageData(dataset="files")
    with pytest.raises(UsageError, match=r"need --data\.dataset files"):
        LanguageData(train="x.txt")
    with pytest.raises(UsageError, match=r"data\.held_out is 0\.5"):
        data_of(tmp_path, level="char", held_out=0.5).documents("train")
    with pytest.raises(UsageError, match=r"--data\.split other"):
        data.documents("other")
    (tmp_path / "bad.txt").write_bytes(b"fine\n\xff\n")
    with pytest.raises(DataError, match=r"bad\.txt, line 2"):
        data_of(tmp_path, train=str(tmp_path / "bad.txt")).documents("train")


def both_ways(data: LanguageData) -> LanguageModule:
    encoder = EncoderConfig(cell="lstm", hidden_size=6, bidirectional=True)
    return module_of(data, encoder=encoder, dropout=0.0).double()


def test_reading_both_ways_is_two_language_models(tmp_path: Path) -> None:
    """The forward one alone, chunk after chunk, and the backward one by a plain loop from each chunk's end."""
    data = data_of(tmp_path)
    module = both_ways(data)
    assert module.backward_to_embedding is not None
    forward = EncoderConfig(cell="lstm", hidden_size=6, bidirectional=False)
    alone = module_of(data, encoder=forward, dropout=0.0).double()
    own = {key: value for key, value in module.state_dict().items() if "layers.1" not in key and "backward" not in key}
    alone.load_state_dict(own)
    state, other = None, None
    for batch in list(data.loader("train", shuffle=True))[:4]:
        with torch.no_grad():
            output, state = module.train().compute_chunk(batch, state)
            expected, other = alone.train().compute_chunk(batch, other)
            assert float(output.outputs.nll) == pytest.approx(float(expected.loss_sum), rel=1e-9)
            backward = 0.0
            layer = cast(Any, module.network.encoder.layers[1]).rnn
            for row, length in zip(batch.tokens, batch.lengths.tolist(), strict=True):
                hidden = None
                for place in range(length - 1, 0, -1):
                    _, hidden = layer(module.network.embedding(row[place]).view(1, 1, -1), hidden)
                    features = module.backward_to_embedding(hidden[0].flatten())
                    logits = module.output_weight @ features + module.output_bias
                    backward -= float(logits.log_softmax(dim=0)[row[place - 1]])
        assert float(output.loss_sum - output.outputs.nll) == pytest.approx(backward, rel=1e-6)
        torch.testing.assert_close(state[0][:, :1], other[0])


@pytest.mark.parametrize("name", ["activation_penalty", "temporal_penalty"])
def test_penalties_of_the_encoder_are_part_of_the_training_loss_alone(name: str, tmp_path: Path) -> None:
    data = data_of(tmp_path)
    batch = next(iter(data.loader("train", shuffle=True)))
    encoder = EncoderConfig(hidden_size=6, bidirectional=False, options=RecurrentOptions(**{name: 10.0}))  # type: ignore[arg-type]
    module = module_of(data, encoder=encoder, dropout=0.0)
    plain = module_of(data, encoder=EncoderConfig(hidden_size=6, bidirectional=False), dropout=0.0)
    plain.load_state_dict(module.state_dict())
    assert torch.equal(plain.eval().compute(batch).loss_sum, module.eval().compute(batch).loss_sum)
    added = module.train().compute(batch).loss_sum - plain.train().compute(batch).loss_sum
    encoded = module.network(batch.tokens[:, :-1], batch.lengths)
    torch.testing.assert_close(added, module.network.encoder.penalty(encoded) * batch.lengths.sum())
    assert float(added) > 0.01


def test_what_reads_backwards_begins_each_chunk_with_the_first_state(tmp_path: Path) -> None:
    data = data_of(tmp_path)
    options = RecurrentOptions(initial_state="learned")
    module = module_of(data, encoder=EncoderConfig(hidden_size=6, bidirectional=True, options=options))
    with torch.no_grad():
        module.network.encoder.initial.value.normal_()
    started: list[Any] = []
    for layer in module.network.encoder.layers:
        layer.register_forward_pre_hook(lambda _, given: started.append(given[2]))
    batch = next(iter(data.loader("train", shuffle=True)))
    state = tuple(torch.randn(len(batch.lengths), 2, 6) for _ in range(2))
    module.compute_chunk(batch, state)
    value: Any = module.network.encoder.initial.value
    for part in range(2):
        assert torch.equal(started[0][part], state[part][:, 0])
        assert torch.equal(started[1][part], value[part, 1].expand(len(batch.lengths), -1))


def test_continuations_read_forward_alone(tmp_path: Path) -> None:
    data = data_of(tmp_path)
    module = both_ways(data).eval()
    batch = data.collate([data.load_inputs(["the owl sat"]).fetch(0, 0)])
    before = module.continue_texts(batch)
    for name, parameter in module.named_parameters():
        if "layers.1" in name or "backward" in name:
            torch.nn.init.normal_(parameter)
    assert module.continue_texts(batch) == before


def test_two_layers_over_two_directions_are_one_line(tmp_path: Path) -> None:
    flags = ("--model.encoder.bidirectional", "true", "--model.encoder.num_layers", 2, "--runs", tmp_path)
    ran = run("fit", "--domain", "text", "--task", "language_model", *flags)
    assert_one_line(ran, 2, "model.encoder", "use num_layers 1, or bidirectional false")


def test_characters_are_held_out_of_each_file(tmp_path: Path) -> None:
    texts = {"a.txt": "abcd" * 25, "b.txt": "wxyz" * 50}
    for name, text in texts.items():
        (tmp_path / name).write_text(text + "\n", encoding="utf-8")
    data = LanguageData(
        dataset="files",
        train=[str(tmp_path / name) for name in texts],
        held_out=0.1,
        vocabulary=VocabularyConfig(level="char", size=300),
    )
    assert [len(part) for part in data.documents("val")] == [10, 20]
    assert [len(part) for part in data.documents("test")] == [10, 20]
    whole = ["".join(parts) for parts in zip(*(data.documents(s) for s in ("train", "val", "test")), strict=True)]
    assert whole == [text + "\n" for text in texts.values()]


def test_folds_of_documents(tmp_path: Path) -> None:
    lines = [f"line {number} of a text ." for number in range(20)]
    text = "\n".join(lines) + "\n"
    folds = [data_of(tmp_path, text=text, folds=4, fold=fold) for fold in range(4)]
    tested = [document for each in folds for document in each.documents("test")]
    assert sorted(tested) == sorted(lines)
    for each in folds:
        parts = [each.documents(split) for split in ("train", "val", "test")]
        assert [len(part) for part in parts] == [12, 3, 5]
        assert sorted(document for part in parts for document in part) == sorted(lines)
    with pytest.raises(UsageError, match=r"data\.fold is 4, allowed is 0 to 3"):
        data_of(tmp_path, text=text, folds=4, fold=4).documents("train")
    with pytest.raises(UsageError, match=r"data\.folds: .*running text"):
        data_of(tmp_path, text=text, level="char", folds=4).documents("train")
    with pytest.raises(UsageError, match=r"leave data\.val and data\.test out"):
        data_of(tmp_path, text=text, folds=4, test=str(tmp_path / "text.txt"))
    sample = LanguageData(folds=5, fold=1, sample_size=50)
    assert len(sample.documents("test")) == 10
    assert len(sample.documents("train")) < 40


def test_a_tied_embedding_is_of_the_topmost_group(tmp_path: Path) -> None:
    for tie, names in ((True, ["encoder", "output"]), (False, ["embedding", "encoder", "output"])):
        module = module_of(data_of(tmp_path), tie=tie)
        module.tune(FinetuneConfig(groups=1))
        assert module.tuning is not None
        assert [group.name for group in module.tuning.groups] == names
        [(trained, _)] = module.tuning.layers()
        assert any(parameter is module.output_weight for parameter in trained)


def test_texts_of_the_training_split_are_kept_too(tmp_path: Path) -> None:
    data = data_of(tmp_path)
    module = module_of(data)
    module.kept = []
    data.test_split = "train"
    evaluate(module, data)
    kept = " ".join(each["input"] for each in module.kept).split()
    assert sorted(kept) == sorted(" ".join(data.documents("train")).split()), "the tracks' texts, in any order"
