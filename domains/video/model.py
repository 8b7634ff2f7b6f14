"""The modules of both tasks: clips, and the single pictures that their CNN can learn from first."""

import math
import re
from typing import Any, ClassVar

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from domains.video.cnn import CNNConfig, FrameCNN
from domains.video.data import ClipBatch
from domains.video.figures import contact_sheet, film_strips
from domains.video.images import ImageBatch
from domains.video.network import ClipClassifier, HeadConfig, HeadKind, ImageClassifier, StreamsKind
from domains.video.weights import OWN, load_weights
from suite.classification import ClassificationModule, ClassWeights, Scores
from suite.console import notice, one_line
from suite.effects import Declared, one_of
from suite.errors import UsageError
from suite.optim import OptimConfig
from suite.pooling import PoolingKind
from suite.recurrent import EncoderConfig

_STATISTICS = re.compile(r"^(mean|deviation)$")


class FrameModule(ClassificationModule):
    """What modules of frames share: results of files that cannot be read, weights from a file, fine-tuning."""

    network: nn.Module
    cnn_config: CNNConfig

    def frame_networks(self) -> dict[str, FrameCNN]:
        """The CNNs by the name that they have in the module."""
        raise NotImplementedError

    def heads(self) -> list[tuple[str, list[nn.Module]]]:
        """Layer groups above the CNNs."""
        raise NotImplementedError

    def layer_groups(self) -> list[tuple[str, list[nn.Module]]]:
        """Stages of the CNNs, then what is above them."""
        stages: dict[str, list[nn.Module]] = {}
        for cnn in self.frame_networks().values():
            for name, modules in cnn.groups():
                stages.setdefault(name, []).extend(modules)
        return [*stages.items(), *self.heads()]

    def adapt_source(self, state_dict: dict[str, Tensor], source_assets: dict[str, Any]) -> dict[str, Tensor]:
        """The source's CNN of pixels for every CNN here that it has none for; its output layer for the same labels.

        The normalisation of pixels is no part of what a CNN of differences takes over.
        """
        pixels = {OWN.sub("", name): weight for name, weight in state_dict.items() if OWN.match(name)}
        adapted = {name: weight for name, weight in state_dict.items() if not OWN.match(name)}
        for place, own in self.frame_networks().items():
            if any(name.startswith(place) for name in adapted):
                continue
            for name, weight in pixels.items():
                borrowed = place.endswith("difference.") and _STATISTICS.match(name)
                adapted[place + name] = own.state_dict()[name] if borrowed else weight
        if source_assets.get("labels") != self.assets["labels"] or not self._has_this_head(state_dict):
            adapted = {name: weight for name, weight in adapted.items() if not name.startswith("network.output.")}
        return adapted

    def _has_this_head(self, state_dict: dict[str, Tensor]) -> bool:
        mine = self.state_dict()["network.output.weight"].shape
        found = state_dict.get("network.output.weight")
        return found is not None and found.shape == mine

    def begin(self, data: Any) -> None:
        """Begin with the weights that ``model.cnn.weights`` names.

        Raises:
            UsageError: more stages than the pictures of ``data`` can be halved.
            CheckpointError: weights that cannot be had.
        """
        config = self.cnn_config
        if config.kind == "vgg" and data.size >> config.stages < 1:
            raise UsageError(
                f"model.cnn.stages is {config.stages}: each halves pictures: of data.size {data.size} nothing is left"
            )
        if config.weights is None:
            return
        for name, cnn in self.frame_networks().items():
            statistics = {key: cnn.state_dict()[key].clone() for key in ("mean", "deviation")}
            load_weights(cnn, config.weights)
            if name.endswith("difference."):
                cnn.load_state_dict(statistics, strict=False)

    def setup(self, stage: str) -> None:
        """Say what batch statistics are of."""
        if stage != "fit":
            return
        if self.trainer.world_size > 1 and any(
            isinstance(module, nn.BatchNorm2d) and module.training for module in self.network.modules()
        ):
            notice("model.cnn: batch statistics are those of each process: norm group makes two processes equal one")

    def predict_step(self, batch: Any, batch_index: int) -> list[dict[str, Any]]:
        results = super().predict_step(batch, batch_index)
        return [
            {
                **{"index": result["index"], **({} if row_id is None else {"id": row_id}), "input": result["input"]},
                **(result if problem is None else {"error": problem}),
            }
            for result, problem, row_id in zip(
                results, batch.problems, batch.row_ids or [None] * len(results), strict=True
            )
        ]

    @staticmethod
    def lines(result: dict[str, Any]) -> list[str]:
        """File, label and probability with tabs between them; or file, ``error`` and the reason."""
        name = one_line(result["input"])
        if "error" in result:
            return [f"{name}\terror\t{one_line(result['error'])}"]
        return [f"{name}\t{one_line(result['label'])}\t{result['probabilities'][result['label']]:.4f}"]

    def titles(self, batch: Any) -> list[str]:
        """What is true and what the model says, for each row of a figure."""
        _, rows = self.sample_table(batch)
        return [f"{target}: {label} {probability:.2f}" for _, target, label, probability in rows]


class ClipModule(FrameModule):
    """A CNN on each frame, a recurrent encoder over time, pooling, a linear layer.

    Args:
        cnn: The network from a frame to features.
        streams: What CNNs see: pixels (rgb), changes from the frame before (difference), or both, each with its own.
        head: A recurrent encoder over the frames' features, or their average as the baseline that knows no order.
        encoder: The recurrent encoder.
        pooling: From the encoder's outputs to one vector.
        dropout: Probability of dropping features of frames, between layers, and of the pooled vector.
        class_weights: What each class counts in the loss: the same, or more where training has fewer examples.
        label_smoothing: Probability mass spread over all classes in the training loss.
    """

    unit: ClassVar[str] = "clips"
    only_with: ClassVar[Declared] = dict.fromkeys(("encoder", "pooling"), one_of("head", "recurrent"))
    fresh_keys: ClassVar[tuple[str, ...]] = ("network.encoder.*", "network.pooling.*", "network.output.*")
    network: ClipClassifier

    def __init__(
        self,
        assets: dict[str, Any],
        *,
        cnn: CNNConfig = CNNConfig(),
        streams: StreamsKind = "rgb",
        head: HeadKind = "recurrent",
        encoder: EncoderConfig = EncoderConfig(cell="gru", hidden_size=96, bidirectional=False),
        pooling: PoolingKind = "attention",
        dropout: float = 0.0,
        class_weights: ClassWeights = "none",
        label_smoothing: float = 0.0,
        optim: OptimConfig | None = None,
    ) -> None:
        super().__init__(assets, class_weights=class_weights, label_smoothing=label_smoothing, optim=optim)
        if not 0.0 <= dropout < 1.0:
            raise UsageError(f"model.dropout is {dropout}, allowed is 0 up to but not including 1")
        self.cnn_config = cnn
        self.network = ClipClassifier(
            len(self.labels),
            cnn=cnn,
            streams=streams,
            head=HeadConfig(head, encoder, pooling, dropout),
            mean=assets["mean"],
            deviation=assets["deviation"],
        )

    def frame_networks(self) -> dict[str, FrameCNN]:
        return {f"network.cnns.{name}.": self.network.cnn(name) for name in self.network.cnns}

    def heads(self) -> list[tuple[str, list[nn.Module]]]:
        network = self.network
        over_time = [] if network.encoder is None else [("encoder", [network.encoder, network.pooling])]
        return [*over_time, ("output", [network.output])]

    def clip_scores(self, batch: ClipBatch) -> Scores:
        """Logits and attention of each clip ``(B * K)`` by itself."""
        frames = batch.frames
        if isinstance(frames, Tensor) and not frames.size(1):  # nothing but files that cannot be read
            frames = frames.new_zeros(frames.size(0), 1, *frames.shape[2:])
        scores: Scores = self.network(frames, batch.lengths)
        return scores

    def score(self, batch: ClipBatch) -> Scores:
        """Logits of each video; of several clips the log of their mean probability, and the first one's attention."""
        scores = self.clip_scores(batch)
        clips = len(scores.logits) // len(batch.labels)
        if clips == 1:
            return scores
        logits = scores.logits if scores.logits.dtype == torch.float64 else scores.logits.float()
        parts = torch.log_softmax(logits, dim=1).view(len(batch.labels), clips, -1)
        weights = None if scores.weights is None else scores.weights[::clips]
        return Scores(torch.logsumexp(parts, dim=1) - math.log(clips), weights, scores.penalty)

    @torch.no_grad()
    def sample_figure(self, batch: ClipBatch) -> Figure:
        """Film strips with the attention over frames."""
        clips = len(batch.lengths) // len(batch.labels)
        weights = self.score(batch).weights
        return film_strips(batch.frames[::clips], batch.lengths[::clips], titles=self.titles(batch), weights=weights)


class ImageModule(FrameModule):
    """A CNN and a linear layer: the task that a CNN of clips can be fine-tuned from.

    Args:
        cnn: The network from a picture to features.
        dropout: Probability of dropping features.
        class_weights: What each class counts in the loss: the same, or more where training has fewer examples.
        label_smoothing: Probability mass spread over all classes in the training loss.
    """

    unit: ClassVar[str] = "pictures"
    fresh_keys: ClassVar[tuple[str, ...]] = ("network.output.*",)
    network: ImageClassifier

    def __init__(
        self,
        assets: dict[str, Any],
        *,
        cnn: CNNConfig = CNNConfig(),
        dropout: float = 0.0,
        class_weights: ClassWeights = "none",
        label_smoothing: float = 0.0,
        optim: OptimConfig | None = None,
    ) -> None:
        super().__init__(assets, class_weights=class_weights, label_smoothing=label_smoothing, optim=optim)
        if not 0.0 <= dropout < 1.0:
            raise UsageError(f"model.dropout is {dropout}, allowed is 0 up to but not including 1")
        self.cnn_config = cnn
        self.network = ImageClassifier(
            len(self.labels), cnn=cnn, dropout=dropout, mean=assets["mean"], deviation=assets["deviation"]
        )

    def frame_networks(self) -> dict[str, FrameCNN]:
        return {"network.cnn.": self.network.cnn}

    def heads(self) -> list[tuple[str, list[nn.Module]]]:
        return [("output", [self.network.output])]

    def score(self, batch: ImageBatch) -> Scores:
        return Scores(self.network(batch.images))

    @torch.no_grad()
    def sample_figure(self, batch: ImageBatch) -> Figure:
        """The pictures with what is true and what the model says."""
        return contact_sheet(batch.images, titles=self.titles(batch))
