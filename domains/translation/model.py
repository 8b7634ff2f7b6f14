"""The translation module: teacher forcing, decoding, and the scores that translations are judged by."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, cast

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics import Metric

from domains.translation.data import PairBatch, tokenizers_from
from domains.translation.decoder import BridgeKind, DecoderConfig
from domains.translation.network import NetworkConfig, TieKind, Translator
from suite.attention import AttentionKind
from suite.console import one_line
from suite.decoding import Hypotheses, beam_search
from suite.effects import Declared, Needs, one_of
from suite.errors import UsageError
from suite.figures import attention_figure
from suite.losses import linear_cross_entropy
from suite.metrics import CorpusBLEU, CorpusCHRF, ExactMatch, Perplexity
from suite.module import StepOutput, SuiteModule
from suite.optim import OptimConfig
from suite.recurrent import Encoded, EncoderConfig
from suite.sequence import length_mask, valid_steps
from suite.transfer import RowMap
from suite.vocabulary import BOS, EOS, PAD, SPECIALS, Tokenizer


@dataclass(frozen=True)
class DecodingConfig:
    """How translations are searched for; validation during training is greedy.

    Args:
        beam_size: Hypotheses kept at each step; 1 is greedy.
        n_best: Hypotheses written for each input, best first; above 1 as input's number (from 0), score, translation.
        length_penalty: Exponent of the length penalty (Wu et al. 2016): 0 favours short translations.
        max_length: Longest translation, in tokens.
        max_ratio: Longest translation, as a multiple of the source's tokens, and ten more.
    """

    only_with: ClassVar[Declared] = {
        "length_penalty": Needs(  # of one beam it changes the score that JSON lines hold
            ("beam_size", "format", "output"),
            lambda beams, form, output: beams > 1 or form == "jsonl" or output is not None,
            "set {0} above 1",
        )
    }

    beam_size: int = 5
    n_best: int = 1
    length_penalty: float = 1.0
    max_length: int = 200
    max_ratio: float = 2.0

    def __post_init__(self) -> None:
        if self.beam_size < 1:
            raise UsageError(f"beam_size is {self.beam_size}, allowed is 1 or more")
        if not 1 <= self.n_best <= self.beam_size:
            raise UsageError(f"n_best is {self.n_best}, allowed is 1 to beam_size ({self.beam_size})")
        if not 0 <= self.length_penalty <= 10:  # so written, NaN is refused too
            raise UsageError(f"length_penalty is {self.length_penalty}, allowed is 0 to 10; usual are 0.6 to 1.5")
        if not 1 <= self.max_length <= 100_000:
            raise UsageError(f"max_length is {self.max_length}, allowed is 1 to 100,000 tokens")
        if not self.max_ratio > 0:
            raise UsageError(f"max_ratio is {self.max_ratio}, allowed is more than 0")


class Translation(dict[str, Any]):
    """One translated input: ``index``, ``source``, ``translation``, ``score``, and ``n_best`` where asked for.

    ``cut`` is there, and true, where the translation reached its limit of length before its end.
    """


class TranslationModule(SuiteModule):
    """A recurrent encoder, attention and a recurrent decoder.

    Args:
        embedding_size: Features of an embedded token.
        encoder: The encoder.
        decoder: The decoder.
        attention: What the decoder asks the encoder's outputs with; none leaves it the encoder's last state alone.
        num_heads: Heads of attention multihead.
        bridge: From the encoder's last state to the decoder's first: a linear layer, a copy, or zeros.
        tie: Which embeddings are one matrix: none, output (target embedding and output layer), all (source too).
        dropout: Probability of dropping embeddings, attended features and outputs between layers.
        embedding_dropout: Probability of dropping a token of a vocabulary, wherever it stands in a batch.
        label_smoothing: Probability mass spread over all tokens in the training loss.
    """

    monitor: ClassVar[str] = "val/bleu"
    monitor_mode: ClassVar[Literal["min", "max"]] = "max"
    unit: ClassVar[str] = "tokens"
    only_with: ClassVar[Declared] = {"num_heads": one_of("attention", "multihead")}

    def __init__(
        self,
        assets: dict[str, Any],
        *,
        embedding_size: int = 192,
        encoder: EncoderConfig = EncoderConfig(),
        decoder: DecoderConfig = DecoderConfig(),
        attention: AttentionKind = "general",
        num_heads: int = 4,
        bridge: BridgeKind = "linear",
        tie: TieKind = "output",
        dropout: float = 0.1,
        embedding_dropout: float = 0.0,
        label_smoothing: float = 0.0,
        optim: OptimConfig | None = None,
        decoding: DecodingConfig = DecodingConfig(),
    ) -> None:
        super().__init__(assets, optim=optim)
        if not 0.0 <= label_smoothing < 1.0:
            raise UsageError(f"model.label_smoothing is {label_smoothing}, allowed is 0 up to but not including 1")
        if not 0.0 <= dropout < 1.0:
            raise UsageError(f"model.dropout is {dropout}, allowed is 0 up to but not including 1")
        self.source_tokenizer, self.target_tokenizer = tokenizers_from(assets)
        self.label_smoothing, self.decoding = label_smoothing, decoding
        config = NetworkConfig(
            embedding_size, encoder, decoder, attention, num_heads, bridge, tie, dropout, embedding_dropout
        )
        self.network = Translator(
            len(self.source_tokenizer), len(self.target_tokenizer), config=config, shared=assets["target"] is None
        )

    def forward(self, batch: PairBatch) -> Tensor:
        """Logits ``(B, T, V)`` of a teacher-forced pass; training goes through ``compute``, which never holds them."""
        features = self._features(batch, self.network.read(batch.source, batch.source_lengths))
        return torch.nn.functional.linear(features, self.network.output_weight, self.network.output_bias)

    def compute(self, batch: PairBatch) -> StepOutput:
        encoded = self.network.read(batch.source, batch.source_lengths)
        features = self._features(batch, encoded)
        mask = length_mask(batch.target_lengths, features.size(1))
        entropy = linear_cross_entropy(
            valid_steps(features, mask),
            self.network.output_weight,
            self.network.output_bias,
            valid_steps(batch.target[:, 1:], mask),
            label_smoothing=self.label_smoothing if self.training else 0.0,
        )
        weight = batch.target_lengths.sum()
        loss = entropy.loss + self.network.encoder.penalty(encoded) * weight if self.training else entropy.loss
        return StepOutput(loss, weight, entropy.nll)

    def _features(self, batch: PairBatch, encoded: Encoded) -> Tensor:
        source = self.network.hand_over(encoded)
        return self.network.decode(batch.target[:, :-1], batch.target_lengths, source.state, source.memory).features

    @torch.no_grad()
    def generate(self, batch: PairBatch, *, decoding: DecodingConfig) -> Hypotheses:
        """Search for translations of ``batch.source``; sources without any token but EOS are translated like others."""
        source = self.network.encode(batch.source, batch.source_lengths)
        # Clamped as floats: a ratio may be larger than any integer.
        limits = (batch.source_lengths * decoding.max_ratio + 10).clamp(max=decoding.max_length).long()
        return beam_search(
            self.network.step,
            source.state,
            source.memory,
            batch_size=batch.source.size(0),
            beam_size=decoding.beam_size,
            n_best=decoding.n_best,
            max_lengths=limits,
            bos=BOS,
            eos=EOS,
            pad=PAD,
            length_penalty=decoding.length_penalty,
        )

    @property
    def greedy(self) -> DecodingConfig:
        """The run's decoding with one beam: what is seen during training need not wait for more."""
        return replace(self.decoding, beam_size=1, n_best=1)

    def translate(self, batch: PairBatch, *, decoding: DecodingConfig | None = None) -> list[Translation]:
        """Translations as text, one for each row. A source without text has the empty translation."""
        found = self.generate(batch, decoding=decoding or self.decoding)
        return [self._translation(batch, found, row) for row in range(len(batch.sources))]

    def _translation(self, batch: PairBatch, found: Hypotheses, row: int) -> Translation:
        empty = int(batch.source_lengths[row]) <= 1
        n_best = []
        for rank in range(found.tokens.size(1)):
            length = int(found.lengths[row, rank])
            if length:
                tokens = found.tokens[row, rank, :length].tolist()
                text = "" if empty else self.target_tokenizer.decode(tokens)
                n_best.append({"translation": text, "score": 0.0 if empty else float(found.scores[row, rank])})
        result = Translation(index=batch.indices[row], source=batch.sources[row], **n_best[0])
        if not empty and int(found.tokens[row, 0, found.lengths[row, 0] - 1]) != EOS:
            result["cut"] = True
        if found.tokens.size(1) > 1:
            result["n_best"] = n_best[:1] if empty else n_best
        return result

    def layer_groups(self) -> list[tuple[str, list[nn.Module]]]:
        """Source embedding, encoder, decoder, output; an embedding that is also the output layer goes with that."""
        network = self.network
        groups: list[tuple[str, list[nn.Module]]] = [("encoder", [network.encoder])]
        groups.append(("decoder", [network.bridge, network.decoder]))
        groups.append(("output", [network.to_embedding]))
        if network.tie == "none":
            groups[1][1].append(network.target_embedding)
        # One matrix for all three belongs to the output alone.
        return groups if network.tie == "all" else [("source_embedding", [network.source_embedding]), *groups]

    def adapt_source(self, state_dict: dict[str, Tensor], source_assets: dict[str, Any]) -> dict[str, Tensor]:
        """Rows of embeddings and output layer by token; a token that the source has not gets the mean of all."""
        source, target = (
            RowMap(old.pieces, new.pieces, what=f"{side} vocabulary", specials=len(SPECIALS))
            for side, old, new in zip(
                ("source", "target"),
                tokenizers_from(source_assets),
                (self.source_tokenizer, self.target_tokenizer),
                strict=True,
            )
        )
        maps = {"source_embedding.weight": source}
        maps |= dict.fromkeys(("target_embedding.weight", "output_bias", "separate_output"), target)
        keys = {f"network.{name}": rows for name, rows in maps.items()}
        return {key: keys[key](weight) if key in keys else weight for key, weight in state_dict.items()}

    def make_metrics(self) -> dict[str, Metric]:
        return {"perplexity": Perplexity(), "bleu": CorpusBLEU(), "chrf": CorpusCHRF(), "exact": ExactMatch()}

    def update_metrics(self, metrics: dict[str, Metric], batch: PairBatch, output: StepOutput) -> None:
        translations = self.translate(batch, decoding=self.greedy if self.trainer.validating else None)
        hypotheses = [translation["translation"] for translation in translations]
        metrics["perplexity"].update(output.outputs, output.weight)
        for name in ("bleu", "chrf"):
            metrics[name].update(hypotheses, batch.references)
        # A translation is text as the tokenizer writes it; white space, case and Unicode form that it cannot write
        # would make each such reference wrong. BLEU and chrF stay those of the references as they are.
        metrics["exact"].update(hypotheses, [self.target_tokenizer.normalize(text) for text in batch.references])
        self.keep(
            lambda: [{**each, "reference": text} for each, text in zip(translations, batch.references, strict=True)],
            indices=batch.indices,
        )

    def predict_step(self, batch: PairBatch, batch_index: int) -> list[Translation]:
        return self.translate(batch)

    def signatures(self) -> dict[str, str]:
        """sacreBLEU's own words for how the scores were computed."""
        return {"bleu": CorpusBLEU().signature, "chrf": CorpusCHRF().signature}

    @staticmethod
    def lines(result: dict[str, Any]) -> list[str]:
        """A result as text: the translation, or its n best with their scores and the input's number."""
        if "n_best" not in result:
            return [one_line(result["translation"])]
        return [f"{result['index']}\t{each['score']:.4f}\t{one_line(each['translation'])}" for each in result["n_best"]]

    def prediction_notes(self, results: Sequence[dict[str, Any]]) -> list[str]:
        """How many translations are cut, and what limits them."""
        count = sum("cut" in result for result in results)
        if not count:
            return []
        limits = f"--max_length {self.decoding.max_length}, --max_ratio {self.decoding.max_ratio:g}"
        return [f"{count} translation(s) reached the limit of tokens ({limits}) and are cut: raise them for whole ones"]

    @torch.no_grad()
    def sample_table(self, batch: PairBatch) -> tuple[Sequence[str], list[list[str]]]:
        """Source, reference and greedy translation of each row."""
        translations = self.translate(batch, decoding=self.greedy)
        rows = [
            [each["source"], text, each["translation"]]
            for each, text in zip(translations, batch.references, strict=True)
        ]
        return ("source", "reference", "translation"), rows

    @torch.no_grad()
    def sample_figure(self, batch: PairBatch) -> Figure | None:
        """Attention of the first row's greedy translation over its source."""
        if self.network.decoder.attention is None:
            return None
        first = PairBatch(*cast(Any, tuple(part[:1] for part in batch)))
        found = self.generate(first, decoding=self.greedy)
        written = found.tokens[:, 0, : int(found.lengths[0, 0])]
        target = torch.cat([torch.full_like(written[:, :1], BOS), written[:, :-1]], dim=1)
        size = int(first.source_lengths[0])
        source = self.network.encode(first.source[:, :size], first.source_lengths)
        decoded = self.network.decode(target, found.lengths[:, 0], source.state, source.memory)
        assert decoded.weights is not None
        return attention_figure(
            decoded.weights[0],
            rows=_shown(self.target_tokenizer, written[0]),
            columns=_shown(self.source_tokenizer, first.source[0, :size]),
        )


def _shown(tokenizer: Tokenizer, ids: Tensor) -> list[str]:
    return tokenizer.tokens(ids.tolist())
