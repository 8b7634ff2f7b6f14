"""The waveform module: likelihood of the next sample, bits per sample for each value of a condition, generation."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import Metric

from domains.audio.data import WaveBatch
from domains.audio.figures import waves_figure
from domains.audio.files import write_header
from domains.audio.generate import generate_files, generate_waves
from domains.audio.listing import CONDITIONS
from domains.audio.network import NetworkConfig, WaveNet
from domains.audio.requests import GenerationBatch
from suite.console import notice, one_line
from suite.effects import Declared, Needs, above
from suite.losses import linear_cross_entropy
from suite.metrics import WeightedMean
from suite.module import StepOutput, SuiteModule
from suite.optim import OptimConfig
from suite.transfer import RowMap

_LISTED = 12  # a figure of its own for each value of a condition, up to so many
_CHUNK = 16384  # rows of logits held at a time in evaluation
_LN2 = 0.6931471805599453


class Bits(WeightedMean):
    """Mean bits a sample, from sums of nats."""

    def compute(self) -> Tensor:
        """Float64 (); NaN for no samples."""
        return super().compute() / _LN2


class WaveformModule(SuiteModule):
    """WaveNet: each sample's mu-law class from those before it.

    Args:
        channels: Features of the residual stream and of the gates.
        num_layers: Gated layers.
        cycle: Dilations double from 1 this many times, then begin again.
        skip_channels: Features of the skips and of the hidden output layer.
        condition_size: Features of each global condition.
        local_channels: Features of the upsampled spectrum, where there is one.
    """

    monitor: ClassVar[str] = "val/bits"
    unit: ClassVar[str] = "samples"
    only_with: ClassVar[Declared] = {
        "condition_size": Needs(
            ("data.dataset", "data.conditions"),
            lambda dataset, names: bool(CONDITIONS.get(dataset) if names is None else names),
            "name conditions in {1}",
        ),
        "local_channels": above("data.mel.bands", 0),
    }

    def __init__(
        self,
        assets: dict[str, Any],
        *,
        channels: int = 64,
        num_layers: int = 24,
        cycle: int = 8,
        skip_channels: int = 64,
        condition_size: int = 16,
        local_channels: int = 32,
        optim: OptimConfig | None = None,
    ) -> None:
        super().__init__(assets, optim=optim)
        self.sample_rate: int = assets["sample_rate"]
        self.values: dict[str, list[str]] = assets["conditions"]
        mel = assets["mel"]
        self.network = WaveNet(
            assets["classes"],
            conditions=[len(values) for values in self.values.values()],
            mel_bands=mel["bands"] if mel else 0,
            hop=mel["hop"] if mel else 1,
            config=NetworkConfig(channels, num_layers, cycle, skip_channels, condition_size, local_channels),
        )

    def on_fit_start(self) -> None:
        """Say how far back the model hears."""
        field = self.network.receptive_field
        notice(f"Receptive field: {field} samples, {1000 * field / self.sample_rate:.1f} ms at {self.sample_rate} Hz")

    def forward(self, batch: WaveBatch) -> Tensor:
        """Logits ``(B, T, V)``; training goes through ``compute``, which never holds them."""
        return self.network(batch.codes[:, :-1], batch.conditions, batch.local)

    def compute(self, batch: WaveBatch) -> StepOutput:
        features = self.network.features(batch.codes[:, :-1], batch.conditions, batch.local)
        steps = torch.arange(features.size(0), device=features.device).unsqueeze(1)
        mask = (steps >= batch.contexts) & (steps < batch.lengths)  # (T, B), time first as the features are
        weight = (batch.lengths - batch.contexts).sum()
        targets = batch.codes[:, 1:].t()[mask]
        layer = self.network.output
        if torch.is_grad_enabled():
            return StepOutput(linear_cross_entropy(features[mask], layer.weight, layer.bias, targets).loss, weight)
        items = torch.arange(features.size(1), device=features.device).expand_as(mask)[mask]
        rows, nats = features[mask], features.new_zeros(features.size(1), dtype=torch.float64)
        for part in range(0, len(rows), _CHUNK):
            piece = slice(part, part + _CHUNK)
            logits = layer(rows[piece])
            logits = logits if logits.dtype == torch.float64 else logits.float()
            nats.index_add_(0, items[piece], cross_entropy(logits, targets[piece], reduction="none").double())
        return StepOutput(nats.sum(), weight, nats)

    def make_metrics(self) -> dict[str, Metric]:
        listed = {name: values for name, values in self.assets["conditions"].items() if 1 < len(values) <= _LISTED}
        each = {key: Bits() for name, values in listed.items() for key in _metric_names(name, values)}
        return {"bits": Bits(), **each}

    def update_metrics(self, metrics: dict[str, Metric], batch: WaveBatch, output: StepOutput) -> None:
        scored = (batch.lengths - batch.contexts).double()
        metrics["bits"].update(output.outputs, scored)
        for column, (name, values) in enumerate(self.values.items()):
            for number, key in enumerate(_metric_names(name, values)):
                rows = batch.conditions[:, column] == number
                if key in metrics and bool(rows.any()):
                    metrics[key].update(output.outputs[rows], scored[rows])
        self.keep(lambda: self._scores(batch, output), indices=batch.indices)

    def _scores(self, batch: WaveBatch, output: StepOutput) -> list[dict[str, Any]]:
        scored = (batch.lengths - batch.contexts).tolist()
        bits = (output.outputs / _LN2).tolist()
        return [
            {
                "index": index,
                "file": batch.names[row],
                "samples": scored[row],
                "bits": bits[row] / scored[row],
                "conditions": self._named(batch.conditions[row]),
            }
            for row, index in enumerate(batch.indices)
        ]

    def _named(self, conditions: Tensor) -> dict[str, str]:
        pairs = zip(self.values.items(), conditions.tolist(), strict=True)
        return {name: values[number] for (name, values), number in pairs}

    @torch.no_grad()
    def predict_step(self, batch: WaveBatch | GenerationBatch, batch_index: int) -> list[dict[str, Any]]:
        """Generate what is asked for; of windows, how many bits a sample they cost."""
        if isinstance(batch, GenerationBatch):
            return generate_files(self.network, self.assets, batch.requests, device=self.device)
        return self._scores(batch, self.compute(batch))

    @staticmethod
    def shown(result: dict[str, Any]) -> dict[str, str]:
        """A window of the test: its file, conditions, and what its samples cost."""
        return {
            "file": result["file"],
            **result["conditions"],
            "bits": f"{result['bits']:.3f} in {result['samples']:,} samples",
        }

    @staticmethod
    def lines(result: dict[str, Any]) -> list[str]:
        """A result as text with tabs: the file, its conditions, and its seed or bits; or ``error`` and the reason."""
        if "error" in result:
            return ["\t".join(map(one_line, (result["file"], "error", result["error"])))]
        words = [f"{name}={value}" for name, value in result["conditions"].items()]
        words += [f"{name}={result[name]}" for name in ("prime", "mel_from", "seed") if name in result]
        if "bits" in result:
            words.append(f"{result['bits']:.4f} bits")
        return ["\t".join(map(one_line, (result["file"], *words)))]

    @torch.no_grad()
    def sample_table(self, batch: WaveBatch) -> tuple[Sequence[str], list[list[Any]]]:
        """Bits of each of the examples, beside what it is."""
        scores = self._scores(batch, self.compute(batch))
        rows = [[each["file"], *each["conditions"].values(), each["bits"]] for each in scores]
        return ["file", *self.values, "bits"], rows

    @torch.no_grad()
    def sample_waves(self, batch: WaveBatch) -> tuple[list[str], list[Tensor], int]:
        """Names, half a second generated with the conditions of each example, and the rate."""
        size = min(self.sample_rate // 2, batch.codes.size(1) - 1)
        waves = generate_waves(self.network, batch.conditions, batch.local, steps=size, seed=0)
        names = ["-".join(self._named(row).values()) or str(number) for number, row in enumerate(batch.conditions)]
        return [f"{number}-{_simple(name)}" for number, name in enumerate(names)], list(waves), self.sample_rate

    def write_samples(self, batch: WaveBatch, folder: Path, stem: str) -> list[Path]:
        """The generated half seconds as wav files, and a figure of waves and spectrograms."""
        names, waves, rate = self.sample_waves(batch)
        paths = []
        for name, wave in zip(names, waves, strict=True):
            path = folder / f"{stem}-{name}.wav"
            with write_header(path, rate=rate) as file:
                file.write(wave.numpy())
            paths.append(path)
        picture = folder / f"{stem}.png"
        waves_figure(names, waves, rate=rate).savefig(picture, dpi=80)
        return [*paths, picture]

    def layer_groups(self) -> list[tuple[str, list[nn.Module]]]:
        """Embeddings and conditions, each cycle of dilations, the output layers."""
        network = self.network
        below: list[nn.Module] = [network.embedding, network.conditions]
        if network.upsampler is not None:
            below.append(network.upsampler)
        cycles: list[list[nn.Module]] = []
        for layer in network.stack.gated_layers():
            if layer.dilation == 1:
                cycles.append([])
            cycles[-1].append(layer)
        named = [(f"cycle {number}", layers) for number, layers in enumerate(cycles, start=1)]
        return [("embedding", below), *named, ("output", [network.hidden, network.output])]

    def adapt_source(self, state_dict: dict[str, Tensor], source_assets: dict[str, Any]) -> dict[str, Tensor]:
        """Values of conditions by name (new ones begin as the mean of the source's), conditions by name too."""
        old: dict[str, list[str]] = source_assets["conditions"]
        tables = "network.conditions."
        if not self.values or not set(self.values) <= set(old):
            # No condition, or one that the source does not have: none is taken for another, what is missing is said.
            return {
                key: weight
                for key, weight in state_dict.items()
                if not key.startswith(tables) and not key.endswith(".condition")
            }
        columns = [list(old).index(name) for name in self.values]
        found = {key: weight for key, weight in state_dict.items() if not key.startswith(tables)}
        for number, (column, name) in enumerate(zip(columns, self.values, strict=True)):
            rows = RowMap(old[name], self.values[name], what=name)
            found[f"{tables}{number}.weight"] = rows(state_dict[f"{tables}{column}.weight"])
        same = columns == list(range(len(old)))
        for key, weight in found.items():
            if not same and key.startswith("network.stack.layers.") and key.endswith(".condition"):
                blocks = weight.chunk(len(old))
                found[key] = torch.cat([blocks[column] for column in columns])
        return found


def _metric_names(condition: str, values: Sequence[str]) -> list[str]:
    """``bits/CONDITION_VALUE`` of each value; modules and files are named by them, so a dot or a slash becomes _."""
    names = [f"bits/{_simple(condition)}_{_simple(value)}" for value in values]
    return [name if names.count(name) == 1 else f"{name}_{number}" for number, name in enumerate(names)]


def _simple(name: str) -> str:
    return re.sub(r"[^\w-]+", "_", name)[:60]
