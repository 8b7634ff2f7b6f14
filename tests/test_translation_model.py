"""The translator: one large pass equals step by step, its parts do what they say, and decoding equals plain loops."""

from functools import cache
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from domains.translation.data import PairBatch, PairExamples, TranslationData, VocabularyConfig
from domains.translation.decoder import BridgeKind, DecoderConfig
from domains.translation.model import TranslationModule
from suite.attention import AttentionKind
from suite.decoding import select
from suite.errors import UsageError
from suite.recurrent import CELLS, CellName, EncoderConfig, RecurrentOptions
from suite.recurrent.fused import FusedLayer
from suite.recurrent.options import FUSED
from suite.recurrent.penalties import activation_penalty, temporal_penalty
from suite.sequence import length_mask

ATTENTIONS: tuple[AttentionKind, ...] = get_args(AttentionKind)
EXACT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}
SIZE = 8


@cache
def data(joint: bool = True) -> TranslationData:
    return TranslationData(sample_size=60, vocabulary=VocabularyConfig(level="char", size=60, joint=joint))


def module_of(*, cell: CellName = "gru", num_layers: int = 1, joint: bool = True, **settings: Any) -> TranslationModule:
    """A small module in eval mode, its encoder's outputs as large as the decoder's states."""
    config: dict[str, Any] = {
        "embedding_size": 6,
        "encoder": EncoderConfig(cell=cell, hidden_size=SIZE // 2),
        "decoder": DecoderConfig(cell=cell, hidden_size=SIZE, num_layers=num_layers),
        "num_heads": 2,
        **settings,
    }
    torch.manual_seed(0)
    return TranslationModule(data(joint).assets, **config).eval()


def batch_of(pairs: list[tuple[str, str]], module: TranslationModule | None = None) -> PairBatch:
    source, target = (module.source_tokenizer, module.target_tokenizer) if module else data().tokenizers
    examples = PairExamples(pairs, source=source, target=target)
    return data().collate([examples.fetch(index, 0) for index in range(len(pairs))])


def ragged() -> PairBatch:
    return batch_of([("A dog is sleeping.", "Ein Hund"), ("A", "Eine Katze schläft hier."), ("", "ab"), ("Two", "")])


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_one_pass_equals_step_by_step(cell: CellName, attention: AttentionKind, num_layers: int) -> None:
    network = module_of(cell=cell, attention=attention, num_layers=num_layers).double().network
    batch = ragged()
    source = network.encode(batch.source, batch.source_lengths)
    for beams in (1, 3):
        rows = torch.arange(len(batch.sources)).repeat_interleave(beams)
        target = torch.randint(4, 40, (len(rows), 7))
        lengths = torch.randint(1, 8, (len(rows),)).index_fill(0, torch.tensor([0]), 7)
        first = select(source.state, rows)
        decoded = network.decode(target, lengths, first, source.memory)
        logits = functional.linear(decoded.features, network.output_weight, network.output_bias)
        expected, state, states, steps = logits.log_softmax(dim=2), first, [], []
        for time in range(7):
            log_probs, state = network.step(target[:, time], state, source.memory)
            steps.append(log_probs)
            states.append(state)
        mask = length_mask(lengths, 7)
        torch.testing.assert_close(torch.stack(steps, dim=1)[mask], expected[mask], **EXACT)
        for row, length in enumerate(lengths.tolist()):
            for part, final in zip(states[length - 1], decoded.state, strict=True):
                torch.testing.assert_close(part[row], final[row], **EXACT)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_loss_is_cross_entropy_of_the_logits(attention: AttentionKind) -> None:
    module, batch = module_of(attention=attention, label_smoothing=0.2, dropout=0.0).double(), ragged()
    mask = length_mask(batch.target_lengths)
    logits, targets = module(batch)[mask], batch.target[:, 1:][mask]
    output = module.compute(batch)
    torch.testing.assert_close(output.loss_sum, functional.cross_entropy(logits, targets, reduction="sum"), **EXACT)
    torch.testing.assert_close(output.outputs, output.loss_sum, **EXACT)
    assert int(output.weight) == len(targets) == int(batch.target_lengths.sum())
    # Smoothing belongs to training, and what perplexity is made of stays without.
    module.train()
    smoothed = module.compute(batch)
    expected = functional.cross_entropy(logits, targets, reduction="sum", label_smoothing=0.2)
    torch.testing.assert_close(smoothed.loss_sum, expected, **EXACT)
    torch.testing.assert_close(smoothed.outputs, output.loss_sum, **EXACT)


@pytest.mark.parametrize("attention", [kind for kind in ATTENTIONS if kind != "none"])
def test_attention_weights_are_shares_of_what_is_valid(attention: AttentionKind) -> None:
    network, batch = module_of(attention=attention).double().network, ragged()
    source = network.encode(batch.source, batch.source_lengths)
    weights = network.decode(batch.target[:, :-1], batch.target_lengths, source.state, source.memory).weights
    assert weights is not None
    assert weights.shape == (len(batch.sources), batch.target.size(1) - 1, batch.source.size(1))
    padding = ~length_mask(batch.source_lengths).unsqueeze(1).expand_as(weights)
    assert not weights[padding].any()
    torch.testing.assert_close(weights.sum(dim=2), torch.ones_like(weights[:, :, 0]), **EXACT)
    assert (weights[~padding] > 0).all()


def test_without_attention_the_state_is_all_that_is_known() -> None:
    module, batch = module_of(attention="none"), ragged()
    source = module.network.encode(batch.source, batch.source_lengths)
    assert source.memory is None
    assert module.network.decoder.attention is None
    decoded = module.network.decode(batch.target[:, :-1], batch.target_lengths, source.state, None)
    assert decoded.weights is None
    assert module.sample_figure(batch) is None
    assert len(module.translate(batch)) == len(batch.sources)


@pytest.mark.parametrize("cells", [("gru", "gru"), ("lstm", "lstm"), ("lstm", "gru"), ("gru", "lstm")])
@pytest.mark.parametrize("kind", get_args(BridgeKind))
def test_bridge(kind: BridgeKind, cells: tuple[CellName, CellName]) -> None:
    encoder = EncoderConfig(cell=cells[0], hidden_size=SIZE // 2, num_layers=2)
    decoder = DecoderConfig(cell=cells[1], hidden_size=SIZE, num_layers=2)
    network, batch = module_of(bridge=kind, encoder=encoder, decoder=decoder).network, ragged()
    read = network.encoder(network.source_embedding(batch.source), batch.source_lengths).state
    state = network.encode(batch.source, batch.source_lengths).state
    assert [part.shape for part in state] == [(len(batch.sources), 2, SIZE)] * (2 if cells[1] == "lstm" else 1)
    last = [part[:, 2:].flatten(1) for part in read]  # both directions of the second layer
    if kind == "zero":
        assert not any(part.any() for part in state)
    elif kind == "copy":
        for layer in (0, 1):
            assert torch.equal(state[0][:, layer], last[0])
            if cells[1] == "lstm":
                assert torch.equal(state[1][:, layer], last[1] if cells[0] == "lstm" else torch.zeros_like(last[0]))
    else:
        assert network.bridge.project is not None
        mapped = network.bridge.project(torch.cat([last[0], *(part.tanh() for part in last[1:])], dim=1))
        hidden = 2 * SIZE  # of both layers; what is left is the cell state, which nothing squashes
        expected = torch.cat([mapped[:, :hidden].tanh(), mapped[:, hidden:]], dim=1)
        torch.testing.assert_close(torch.cat([part.flatten(1) for part in state], dim=1), expected)
        assert len({tuple(part.flatten().tolist()) for whole in state for part in whole.unbind(1)}) == 2 * len(state)


def test_bridge_copy_needs_equal_sizes() -> None:
    with pytest.raises(UsageError, match=r"bridge copy needs .*\(6\) to equal decoder.hidden_size \(8\)"):
        module_of(bridge="copy", encoder=EncoderConfig(hidden_size=3))


def gradients(module: TranslationModule) -> Any:
    module.compute(ragged()).loss_sum.backward()
    return module.network


@pytest.mark.parametrize("decoder_size", [6, SIZE])  # 6 is the embedding's: then no layer stands between
def test_tied_matrices_are_one_and_learn_from_each_use(decoder_size: int) -> None:
    config: dict[str, Any] = {"decoder": DecoderConfig(cell="gru", hidden_size=decoder_size), "dropout": 0.0}
    apart = module_of(tie="none", **config).double()
    apart.network.separate_output.data.copy_(apart.network.target_embedding.weight)
    apart.network.source_embedding.weight.data.copy_(apart.network.target_embedding.weight)
    sums = gradients(apart)
    assert sums.output_weight is sums.separate_output
    both = sums.target_embedding.weight.grad + sums.separate_output.grad
    for tie, expected in (("output", both), ("all", both + sums.source_embedding.weight.grad)):
        tied = module_of(tie=tie, **config).double()
        tied.load_state_dict(apart.state_dict(), strict=False)
        network = gradients(tied)
        assert network.output_weight is network.target_embedding.weight
        assert (network.source_embedding is network.target_embedding) == (tie == "all")
        torch.testing.assert_close(network.target_embedding.weight.grad, expected, **EXACT)
        pointers = {parameter.data_ptr() for parameter in network.parameters()}
        assert len(pointers) == len(list(sums.parameters())) - (2 if tie == "all" else 1)
        assert network.target_embedding.weight.data_ptr() in pointers


def test_tie_all_needs_one_vocabulary() -> None:
    with pytest.raises(UsageError, match=r"tie all needs one vocabulary"):
        module_of(tie="all", joint=False)
    assert module_of(tie="output", joint=False).network.source_embedding is not None


class Calls(TorchFunctionMode):
    """Counts what Python asks of torch."""

    count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("cell", FUSED)
def test_there_is_no_loop_over_time(
    cell: CellName, attention: AttentionKind, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = module_of(cell=cell, attention=attention, num_layers=2).train(training)
    kernels: list[int] = []
    forward = FusedLayer.forward

    def counted(self: FusedLayer, inputs: Tensor, *rest: Any) -> Any:
        kernels.append(inputs.size(1))
        return forward(self, inputs, *rest)

    monkeypatch.setattr(FusedLayer, "forward", counted)
    counts = []
    for length in (3, 30):
        kernels.clear()
        with Calls() as calls:
            module.compute(batch_of([("a" * length, "b" * length), ("a", "bc")])).loss_sum.backward()
        assert kernels == [length + 1] * 4, "two directions of the encoder, two layers of the decoder"
        counts.append(calls.count)
    assert counts[0] == counts[1]


def test_dropout_reaches_embeddings_attention_and_layers() -> None:
    """Each place drops on its own: with the others off, training passes still differ."""
    for place in ("dropout", "decoder.dropout", "encoder.dropout"):
        module = module_of(num_layers=2, dropout=0.5, encoder=EncoderConfig(hidden_size=4, num_layers=2))
        chosen: nn.Module = module.network.get_submodule(place)
        chosen.train()
        first, second = (module.compute(ragged()).loss_sum for _ in range(2))
        assert not torch.equal(first, second), place


def test_embedding_dropout_reaches_both_embeddings() -> None:
    """A tied output layer knows every token all the same."""
    for tie in ("none", "all"):
        module = module_of(tie=tie, embedding_dropout=0.5, dropout=0.0).train()
        network = module.network
        assert (network.source_embedding.dropout, network.target_embedding.dropout) == (0.5, 0.5)
        assert not torch.equal(module.compute(ragged()).loss_sum, module.compute(ragged()).loss_sum)
        if tie == "all":
            assert network.output_weight is network.target_embedding.weight


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"embedding_dropout": 1.0}, r"embedding_dropout is 1\.0"),
        ({"label_smoothing": 1.0}, r"model.label_smoothing is 1.0"),
        ({"dropout": -0.1}, r"model.dropout is -0.1"),
        ({"embedding_size": 0}, r"embedding_size is 0, allowed is 1 or more"),
        ({"embedding_size": -2}, r"embedding_size is -2, allowed is 1 or more"),
        ({"decoder": DecoderConfig(hidden_size=-3)}, r"decoder\.hidden_size is -3, allowed is 1 or more"),
        ({"decoder": DecoderConfig(num_layers=0)}, r"decoder\.num_layers is 0, allowed is 1 or more"),
        ({"attention": "multihead", "num_heads": 3}, r"num_heads is 3"),
        ({"attention": "dot", "encoder": EncoderConfig(hidden_size=3)}, r"attention dot needs"),
    ],
)
def test_refuses_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        module_of(**settings)


def test_state_is_float64_in_float64() -> None:
    network, batch = module_of().double().network, ragged()
    source = network.encode(batch.source, batch.source_lengths)
    log_probs: Tensor = network.step(batch.target[:, 0], *source)[0]
    assert log_probs.dtype == torch.float64
    torch.testing.assert_close(log_probs.exp().sum(dim=1), torch.ones(len(log_probs)).double(), **EXACT)


def test_penalties_of_the_encoder_are_in_the_training_loss() -> None:
    """Activation and temporal ones, as means over source steps, times the tokens that the loss sums over."""
    options = RecurrentOptions(activation_penalty=0.7, temporal_penalty=0.4)
    plain, module = (
        module_of(encoder=EncoderConfig(hidden_size=4, options=each), dropout=0.0)
        for each in (RecurrentOptions(), options)
    )
    batch = ragged()
    encoded = module.network.read(batch.source, batch.source_lengths)
    penalty = 0.7 * activation_penalty(encoded.outputs, encoded.lengths)
    penalty = penalty + 0.4 * temporal_penalty(encoded.outputs, encoded.lengths)
    without, with_it = plain.train().compute(batch), module.train().compute(batch)
    torch.testing.assert_close(with_it.loss_sum, without.loss_sum + penalty * without.weight)
    assert torch.equal(with_it.outputs, without.outputs)
    assert torch.equal(module.eval().compute(batch).loss_sum, plain.eval().compute(batch).loss_sum)


def test_the_decoder_refuses_what_is_not_its_to_choose() -> None:
    for name, value in (("residual", True), ("initial_state", "learned"), ("temporal_penalty", 0.1)):
        options = RecurrentOptions(**{name: value})  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=rf"^model\.decoder: {name} cannot be chosen for a decoder"):
            module_of(decoder=DecoderConfig(options=options))
