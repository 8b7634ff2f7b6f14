"""The classifier: what it is made of, what its plots show, and what it takes over from other models."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from matplotlib.image import imread

from domains.text.data import TextData
from domains.text.language_data import LanguageData
from domains.text.language_model import LanguageModule
from domains.text.model import TextModule
from domains.text.tokens import VocabularyConfig
from suite.errors import UsageError
from suite.pooling import PoolingKind
from suite.recurrent import EncoderConfig, RecurrentOptions
from suite.vocabulary import UNK, Tokenizer
from tests.commands import QUIET, Ran, assert_one_line, run

ENCODER = EncoderConfig(cell="gru", hidden_size=6, bidirectional=False)
TINY = ("--model.embedding_size", 8, "--model.encoder.hidden_size", 8, "--trainer.max_epochs", 1)


def data_of(**settings: Any) -> TextData:
    return TextData(**{"sample_size": 60, "batch_size": 6, **settings})


def module_of(data: TextData, **settings: Any) -> TextModule:
    return TextModule(data.assets, **{"embedding_size": 5, "encoder": ENCODER, **settings})


def first_batch(data: TextData) -> Any:
    return next(iter(data.loader("val", shuffle=False)))


@pytest.mark.parametrize("pooling", get_args(PoolingKind))
@pytest.mark.parametrize("bidirectional", [False, True])
def test_logits_are_those_of_its_parts_on_single_texts(pooling: PoolingKind, bidirectional: bool) -> None:
    data = data_of()
    encoder = EncoderConfig(cell="lstm", hidden_size=6, bidirectional=bidirectional)
    module = module_of(data, pooling=pooling, encoder=encoder).double().eval()
    batch = first_batch(data)
    scores = module.score(batch)
    assert (scores.weights is not None) == (pooling == "attention")
    for row in range(len(batch.inputs)):
        ids = batch.tokens[row : row + 1, : batch.lengths[row]]
        encoded = module.network.encoder(module.network.embedding(ids), batch.lengths[row : row + 1])
        features = module.pooling(encoded.outputs, batch.lengths[row : row + 1]).features
        torch.testing.assert_close(scores.logits[row], module.output(features)[0], rtol=1e-9, atol=1e-9)


def test_word_dropout_reads_tokens_as_unknown_in_training_alone() -> None:
    data = data_of()
    module, batch = module_of(data, word_dropout=0.5, dropout=0.0), first_batch(data)
    seen: list[torch.Tensor] = []
    module.network.embedding.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    module.train()(batch)
    module.eval()(batch)
    changed = seen[0] != batch.tokens
    assert 0.3 < float(changed.sum() / batch.lengths.sum()) < 0.7
    assert (seen[0][changed] == UNK).all()
    assert not (batch.tokens[changed] == 0).any(), "padding became unknown"
    assert torch.equal(seen[1], batch.tokens)


def test_embedding_dropout_is_the_embeddings() -> None:
    data = data_of()
    module, batch = module_of(data, embedding_dropout=0.5, dropout=0.0), first_batch(data)
    assert module.network.embedding.dropout == 0.5
    assert not torch.equal(module.compute(batch).loss_sum, module.compute(batch).loss_sum)
    with pytest.raises(UsageError, match=r"embedding_dropout is 1\.0"):
        module_of(data, embedding_dropout=1.0)


@pytest.mark.parametrize("name", ["activation_penalty", "temporal_penalty"])
def test_penalties_of_the_encoder_are_part_of_the_training_loss_alone(name: str) -> None:
    data = data_of()
    batch = first_batch(data)
    encoder = EncoderConfig(cell="gru", hidden_size=6, bidirectional=False, options=RecurrentOptions(**{name: 10.0}))  # type: ignore[arg-type]
    module, plain = module_of(data, encoder=encoder, dropout=0.0), module_of(data, dropout=0.0)
    plain.load_state_dict(module.state_dict())
    assert torch.equal(plain.eval().compute(batch).loss_sum, module.eval().compute(batch).loss_sum)
    added = module.train().compute(batch).loss_sum - plain.train().compute(batch).loss_sum
    expected = module.network.encoder.penalty(module.network(batch.tokens, batch.lengths)) * len(batch.labels)
    torch.testing.assert_close(added, expected)
    assert float(added) > 0.01


def test_attention_is_drawn_and_its_words_are_there(tmp_path: Path) -> None:
    data = data_of()
    figure = module_of(data, pooling="attention").eval().sample_figure(first_batch(data))
    assert figure is not None
    shown = {text.get_text() for text in figure.axes[0].texts}
    ids = first_batch(data).tokens[0, : first_batch(data).lengths[0]].tolist()
    assert {word.removeprefix("▁") for word in data.tokenizer.tokens(ids)} <= shown
    figure.savefig(tmp_path / "words.png")
    assert imread(tmp_path / "words.png").std() > 0
    assert module_of(data, pooling="mean").sample_figure(first_batch(data)) is None


def test_probabilities_that_mean_nothing_are_refused() -> None:
    data = data_of()
    for settings, name in (({"word_dropout": 1.0}, "word_dropout"), ({"dropout": -0.1}, "dropout")):
        with pytest.raises(UsageError, match=name):
            module_of(data, **settings)
    with pytest.raises(UsageError, match="embedding_size is 0"):
        module_of(data, embedding_size=0)


def test_a_language_models_encoder_goes_into_a_classifier(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("zebra the film was dull\nthe zebra sat\n" * 9, encoding="utf-8")
    files = LanguageData(dataset="files", train=str(tmp_path / "text.txt"), vocabulary=VocabularyConfig())
    source = LanguageModule(files.assets, embedding_size=5, encoder=ENCODER)
    data = data_of()
    module = module_of(data)
    adapted = module.adapt_source(source.state_dict(), source.assets)
    assert {key.split(".")[0] for key in adapted} == {"network"}
    old, new = Tokenizer.from_state(files.assets["tokenizer"]), data.tokenizer
    rows, weight = adapted["network.embedding.weight"], source.network.embedding.weight.detach()
    shared = set(old.pieces) & set(new.pieces)
    assert {" film", " the", " dull"} <= shared
    for piece in shared:
        assert torch.equal(rows[new.pieces.index(piece)], weight[old.pieces.index(piece)])
    others = [index for index, piece in enumerate(new.pieces) if piece not in shared]
    torch.testing.assert_close(rows[others], weight[4:].mean(dim=0).expand(len(others), -1))
    for key, value in source.network.encoder.state_dict().items():
        assert torch.equal(adapted[f"network.encoder.{key}"], value)


def test_a_language_models_rows_are_mapped_to_other_tokens() -> None:
    assets = [{"tokenizer": Tokenizer.train(lines, level="word", size=50).state()} for lines in (["a b c"], ["c a d"])]
    for tie in (True, False):
        source, module = (LanguageModule(each, embedding_size=5, encoder=ENCODER, tie=tie) for each in assets)
        torch.nn.init.normal_(source.output_bias)
        adapted = module.adapt_source(source.state_dict(), source.assets)
        assert adapted.keys() == module.state_dict().keys()
        module.load_state_dict(adapted)
        a, c, d = (module.tokenizer.encode(word)[0] for word in "acd")
        old_a, old_c = (source.tokenizer.encode(word)[0] for word in "ac")
        for name in ("output_weight", "output_bias"):
            new, old = getattr(module, name), getattr(source, name)
            assert torch.equal(new[a], old[old_a])
            assert torch.equal(new[c], old[old_c])
            torch.testing.assert_close(new[d], old[4:].mean(dim=0))


def test_a_classifiers_labels_are_mapped_by_name() -> None:
    data = data_of()
    source = module_of(data)
    module = TextModule({**data.assets, "labels": ["positive", "neutral"], "counts": [1, 1]}, embedding_size=5,
                        encoder=ENCODER)  # fmt: skip
    adapted = module.adapt_source(source.state_dict(), data.assets)
    assert torch.equal(adapted["output.weight"][0], source.output.weight[1])
    torch.testing.assert_close(adapted["output.weight"][1], source.output.weight.mean(dim=0))
    assert "pooling.key.weight" in adapted
    others = TextModule({**data.assets, "labels": ["a", "b"], "counts": [1, 1]}, embedding_size=5, encoder=ENCODER)
    assert {key.split(".")[0] for key in others.adapt_source(source.state_dict(), data.assets)} == {"network"}


def fit(verb: str, folder: Path, name: str, *argv: Any) -> Ran:
    ran = run(verb, "--domain", "text", *QUIET, *TINY, "--runs", folder, "--name", name, *argv)
    assert ran.status == 0, ran.err
    return ran


def test_pretrain_fine_tune_evaluate_predict(tmp_path: Path) -> None:
    small = ("--data.sample_size", 150)
    fit(
        "fit", tmp_path, "lm", "--task", "language_model", *small, "--model.encoder.cell", "gru", "--decoding.length", 3
    )
    source = ("--source", tmp_path / "text" / "lm", *small)
    both = ("--data.vectors", tmp_path / "vectors.txt", "--runs", tmp_path)
    refused = run("finetune", "--domain", "text", *QUIET, *TINY, *source, *both)
    assert_one_line(refused, 2)
    assert "data.vectors: in fine-tuning the weights come from the source: leave it out" in refused.err
    ran = fit("finetune", tmp_path, "tuned", *source, "--finetune.unfreeze", "epochs", "--trainer.max_epochs", 3)
    assert "loaded" in ran.err
    assert "left_out" in ran.err
    assert "epoch 1, step 0: training classifier; frozen: embedding, encoder" in ran.err
    assert "epoch 3" in ran.err
    checkpoint = torch.load(tmp_path / "text" / "tuned" / "checkpoints" / "best.ckpt", weights_only=True)
    taken = checkpoint["suite"]["settings"]["model"]
    encoder = {key: value for key, value in taken["encoder"].items() if key != "options"}
    assert encoder == {"cell": "gru", "hidden_size": 8, "num_layers": 1, "bidirectional": False}
    output = tmp_path / "out.jsonl"
    evaluated = run("evaluate", "--checkpoint", tmp_path / "text" / "tuned", "--output", output)
    assert evaluated.status == 0, evaluated.err
    assert "  class" in evaluated.out
    first = json.loads(output.read_text().splitlines()[0])
    assert first.keys() == {"index", "input", "label", "probabilities", "target"}
    assert (tmp_path / "out.confusion.json").is_file()
    assert (tmp_path / "out.confusion.png").is_file()
    predicted = run(
        "predict", "--checkpoint", tmp_path / "text" / "tuned", "--format", "jsonl", stdin=b"dull\n\nwitty\n"
    )
    results = [json.loads(line) for line in predicted.lines]
    assert [each["input"] for each in results] == ["dull", "", "witty"]
    assert [each["index"] for each in results] == [0, 1, 2]
    language = ("--checkpoint", tmp_path / "text" / "lm")
    (tmp_path / "bad.txt").write_bytes(b"dull\ncaf\xe9\nwitty\n\xff\n")  # refused as a whole, as in translation
    refused = run("predict", "--checkpoint", tmp_path / "text" / "tuned", tmp_path / "bad.txt")
    assert_one_line(refused, 1, "bad.txt, line 2", "bad.txt, line 4", "not UTF-8")
    continued = run("predict", *language, "--temperature", 0.5, "--top_k", 5, stdin=b"the\n")
    assert continued.status == 0, continued.err
    assert continued.lines[0].startswith("the ")
    assert len(continued.lines[0].split()) <= 4
    refused = run("predict", *language, "--top_p", 0, stdin=b"the\n")
    assert_one_line(refused, 2, "top_p is 0")


def test_what_a_run_leaves(tmp_path: Path) -> None:
    ran = fit("fit", tmp_path, "run", "--data.sample_size", 100, "--model.pooling", "attention")
    samples = {path.name for path in (tmp_path / "text" / "run" / "samples").iterdir()}
    assert {"val.confusion.json", "val.confusion.png", "test.confusion.json", "test.confusion.png"} < samples
    assert {path.rpartition(".")[2] for path in samples if path.startswith("step-")} == {"jsonl", "png"}
    report = json.loads((tmp_path / "text" / "run" / "samples" / "test.confusion.json").read_text())
    assert sum(map(sum, report["matrix"])) == 1000
    accuracy = sum(report["matrix"][index][index] for index in range(2)) / 1000
    assert f"accuracy         {accuracy:.4f}" in ran.out
    assert "class     precision" in ran.out
