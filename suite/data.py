"""SuiteDataModule: splits, batches and their place in an epoch, for every domain.

A domain says what its examples are; order, sharing over ranks, workers and going on after a stop are done here. Every
draw is a pure function of (seed, epoch, index, rank), so the only state of a run's data is (epoch, batches done).
"""

import hashlib
import signal
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, cast

import numpy
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from suite.errors import CheckpointError, DataError, UsageError
from suite.fingerprints import Fingerprint, fingerprint_examples
from suite.inputs import InputColumns, add_input_arguments, read_inputs
from suite.sampler import Batching, BucketBatchSampler, Key, WindowBatchSampler, plan_batches
from suite.seeding import mix

_MOST_WORKERS = 1024


class Examples(Protocol):
    """One split: ``lengths (N, K)`` for bucketing, and ``fetch`` of one example, augmented by its seed alone.

    Where nothing about an example is random, ``draws = False`` spares the seed, which is then 0; and such examples may
    ``gather(indices)`` a batch at once, the same that ``collate`` makes of them one by one.
    """

    lengths: NDArray[numpy.int64]

    def fetch(self, index: int, seed: int) -> Any:
        """Example ``index``; whatever is random about it is drawn from ``seed``."""


class _KeyedDataset(Dataset[Any]):
    """Examples by (epoch, index), as the sampler names them."""

    def __init__(self, examples: Examples, seed: int) -> None:
        self.examples, self.seed = examples, seed
        self.draws = getattr(examples, "draws", True)

    def __len__(self) -> int:
        return len(self.examples.lengths)

    def __getitem__(self, key: Key) -> Any:
        epoch, index = key
        return self.examples.fetch(index, mix(self.seed, epoch, index, "augment") if self.draws else 0)

    def __getitems__(self, keys: Sequence[Key]) -> Any:
        """What a loader asks for: a finished batch of examples that ``gather`` themselves, else each."""
        gather = getattr(self.examples, "gather", None)
        return [self[key] for key in keys] if gather is None else gather([index for _, index in keys])


class SuiteDataModule(LightningDataModule):
    """Bucketed batches from named splits.

    Args:
        batch_size: examples in a batch of one process, at most.
        max_tokens: padded steps in a batch of one process, at most.
        num_workers: processes that load data.
        seed: decides every order and augmentation.
        assets: what a checkpoint brought along; made from the training split if ``None``.
    """

    trained_settings: ClassVar[frozenset[str]] = frozenset()
    """Constructor arguments that decide what is trained: fixed once there is a checkpoint."""
    own_settings: ClassVar[frozenset[str]] = frozenset({"held_out", "folds", "fold"})
    """Those of them that are about the data at hand alone: fine-tuning on other data does not take them over."""
    begin_settings: ClassVar[frozenset[str]] = frozenset()
    """Those that weights begin with where there is no source: fine-tuning refuses them."""
    prediction_usage: ClassVar[str] = "FILE"
    """What ``predict`` is called with beside its checkpoint, as an example for a person."""
    prediction_window: ClassVar[int] = 4096
    """Inputs that ``predict`` sorts by length together: their results are written before the next ones begin."""
    prediction_steps: ClassVar[int | None] = 1024
    """Padded steps of an input in a full batch of ``predict``, unless ``max_tokens`` limits them: a longer input makes
    its batch smaller and, if it is long enough, stands alone. No limit if ``None``."""
    order_matters: ClassVar[bool] = False
    """Whether the metrics of a split depend on the order of its items, as they do for parts of one long sequence."""
    compares_sources: ClassVar[bool] = True
    """Whether ``evaluate`` may fingerprint the training items too, to compare what a held-out split was drawn from."""

    def __init__(
        self,
        *,
        batch_size: int | None,
        max_tokens: int | None,
        num_workers: int = 0,
        seed: int = 0,
        assets: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= num_workers <= _MOST_WORKERS:  # each is a process: a slip of the keyboard would stop the machine
            raise UsageError(f"data.num_workers must be from 0 to {_MOST_WORKERS:,}, got {num_workers}")
        self.batch_size, self.max_tokens, self.num_workers = batch_size, max_tokens, num_workers
        self.seed = seed
        self.test_split = "test"
        self._assets = assets
        self._examples: dict[str, Examples] = {}
        self._batchings: dict[tuple[Any, ...], tuple[Examples, Batching]] = {}
        self._fingerprints: dict[str, Fingerprint] = {}
        self._position = (0, 0)

    def load(self, split: str) -> Examples:
        """The examples of ``train``, ``val`` or another split; called once a split."""
        raise NotImplementedError

    def make_assets(self) -> dict[str, Any]:
        """Plain data that prediction needs (tokenizers, labels), from the training split."""
        raise NotImplementedError

    def renewed_assets(self) -> dict[str, Any]:
        """Of ``assets`` that came from elsewhere: what describes the training examples, of those at hand instead."""
        return {}

    def collate(self, examples: list[Any]) -> Any:
        """Fetched examples to a batch, a ``NamedTuple``."""
        raise NotImplementedError

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch's tensors; its lists of indices and texts stay as they are.

        Lightning's own way walks through every item of those lists: one to two milliseconds a step.
        """
        if not hasattr(batch, "_fields"):
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        return type(batch)(*(value if _is_plain(value) else move_data_to_device(value, device) for value in batch))

    @property
    def assets(self) -> dict[str, Any]:
        """What travels with the model."""
        if self._assets is None:
            self._assets = self.make_assets()
        return self._assets

    def renew_assets(self) -> None:
        """Take over ``renewed_assets``: in fine-tuning with a source's assets."""
        self._assets = {**self.assets, **self.renewed_assets()}

    def examples(self, split: str) -> Examples:
        """The examples of a split, loaded once.

        Raises:
            DataError: a split without examples.
        """
        if split not in self._examples:
            examples = self.load(split)
            if not len(examples.lengths):
                raise DataError(f"the {split} split has no examples")
            self._examples[split] = examples
        return self._examples[split]

    def fingerprint_of(self, split: str) -> Fingerprint:
        """The content of a split, a digest of each item; taken once."""
        if split not in self._fingerprints:
            self._fingerprints[split] = self.take_fingerprint(split)
        return self._fingerprints[split]

    def take_fingerprint(self, split: str) -> Fingerprint:
        """The content of a split: here all that its examples hold, fetched with seed 0.

        A domain that knows its items has cheaper ones: texts and labels, digests of files.
        """
        return fingerprint_examples(self.examples(split), where=split)

    def fingerprint(self) -> str:
        """A digest of the training split; a run resumes only with the data that it began with."""
        return self.fingerprint_of("train").sha256

    def earlier_fingerprint(self) -> str:
        """The digest of the training split that checkpoints of earlier versions hold."""
        lengths = numpy.ascontiguousarray(self.examples("train").lengths, dtype=numpy.int64)
        return hashlib.sha256(repr(lengths.shape).encode() + lengths.tobytes()).hexdigest()

    def is_known_as(self, fingerprint: str) -> bool:
        """Whether the training data has this ``fingerprint``, by this version or an earlier one."""
        return fingerprint == self.fingerprint() or fingerprint == self.earlier_fingerprint()

    def loader(self, split: str, *, shuffle: bool, epoch: int = 0, start_batch: int = 0) -> DataLoader[Any]:
        """Batches of a split for this process."""
        examples = self.examples(split)
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sampler: BucketBatchSampler | WindowBatchSampler
        if split == "predict" and world_size == 1:
            sampler = WindowBatchSampler(
                examples.lengths,
                window=self.prediction_window,
                batch_size=self.batch_size,
                max_tokens=self._limit(split),
                seed=self.seed,
            )
        else:
            sampler = BucketBatchSampler(
                examples.lengths,
                shuffle=shuffle,
                seed=self.seed,
                rank=rank,
                world_size=world_size,
                epoch=epoch,
                start_batch=start_batch,
                batching=self._batching(split, world_size),
            )
        return self.make_loader(_KeyedDataset(examples, self.seed), sampler)

    def _limit(self, split: str) -> int | None:
        """``max_tokens``; in prediction what ``prediction_steps`` says if it is not given."""
        if split != "predict" or self.max_tokens is not None or None in (self.prediction_steps, self.batch_size):
            return self.max_tokens
        return cast(int, self.prediction_steps) * cast(int, self.batch_size)

    def _batching(self, split: str, world_size: int) -> Batching:
        """How a split is cut into batches, computed once for the same examples and limits."""
        examples, limits = self.examples(split), (self.batch_size, self._limit(split))
        key = (split, *limits, world_size)
        if key not in self._batchings or self._batchings[key][0] is not examples:
            batch_size, max_tokens = limits
            batching = plan_batches(
                examples.lengths, batch_size=batch_size, max_tokens=max_tokens, world_size=world_size
            )
            self._batchings[key] = (examples, batching)
        return self._batchings[key][1]

    def batch_of(self, split: str, indices: Sequence[int]) -> Any:
        """A batch of chosen examples, without augmentation by epoch."""
        dataset = _KeyedDataset(self.examples(split), self.seed)
        return self._finish(dataset.__getitems__([(0, index) for index in indices]))

    def _finish(self, fetched: Any) -> Any:
        return self.collate(fetched) if isinstance(fetched, list) else fetched

    def make_loader(self, dataset: Dataset[Any], sampler: Any) -> DataLoader[Any]:
        """A loader of ``dataset`` that asks for what the batch ``sampler`` yields, in its order."""
        return DataLoader(
            dataset,
            batch_sampler=sampler,
            collate_fn=self._finish,
            num_workers=self.num_workers,
            worker_init_fn=_leave_signals_to_the_run,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def train_dataloader(self) -> DataLoader[Any]:
        epoch, start_batch = self._position
        return self.loader("train", shuffle=True, epoch=epoch, start_batch=start_batch)

    def val_dataloader(self) -> DataLoader[Any]:
        return self.loader("val", shuffle=False)

    def test_dataloader(self) -> DataLoader[Any]:
        return self.loader(self.test_split, shuffle=False)

    def predict_dataloader(self) -> DataLoader[Any]:
        return self.loader("predict", shuffle=False)

    @classmethod
    def add_prediction_arguments(cls, parser: Any) -> None:
        """Declare what ``predict`` takes beside the settings: here the files with the inputs."""
        add_input_arguments(parser)

    @property
    def input_columns(self) -> InputColumns | None:
        """The columns that ``predict`` reads from a table; ``None`` for a domain that predicts lines only."""
        return None

    def prediction_inputs(self, options: Any, *, processes: int) -> Sequence[Any]:
        """The inputs that a command line of ``predict`` names: here lines of text and rows of tables.

        Args:
            options: the parsed command line.
            processes: how many processes share the inputs out; each of them reads all.

        Raises:
            UsageError: standard input, which only one process can read, for several; flags without effect.
            DataError: a file that cannot be read.
        """
        return read_inputs(options, columns=self.input_columns, processes=processes)

    def set_inputs(self, inputs: Sequence[Any]) -> None:
        """Take ``inputs`` as the split ``predict``."""
        self._examples["predict"] = self.load_inputs(inputs)

    def load_inputs(self, inputs: Sequence[Any]) -> Examples:
        """Examples without targets, one for each input, in order."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Where the run is: full epochs, and batches done of the next one; and the data that it was with."""
        assert self.trainer is not None
        loop = self.trainer.fit_loop
        epochs = cast(Any, loop.epoch_progress.current).started
        batches = cast(Any, loop.epoch_loop.batch_progress.current).processed
        if batches < self.trainer.num_training_batches:
            position = (epochs - 1, batches)
        else:
            position = (epochs, 0)
        return {"position": list(position), "fingerprint": self.fingerprint(), "world_size": self.trainer.world_size}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to where a run was.

        Raises:
            CheckpointError: other training data, or another number of processes.
        """
        assert self.trainer is not None
        if not self.is_known_as(state_dict["fingerprint"]):
            raise CheckpointError("the training data is not what this run began with: restore it, or begin a new run")
        if state_dict["world_size"] != self.trainer.world_size:
            raise CheckpointError(
                f"this run was trained by {state_dict['world_size']} process(es) and cannot go on with "
                f"{self.trainer.world_size}: batches would differ; use as many devices as before, or begin a new run"
            )
        self._position = (state_dict["position"][0], state_dict["position"][1])


def _leave_signals_to_the_run(worker: int) -> None:
    """A signal to the whole process group ends the run after its step, not the workers before: it ends them then."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _is_plain(value: Any) -> bool:
    """Whether a field of a batch is a list of plain values, by its first one."""
    return isinstance(value, list) and (not value or isinstance(value[0], int | str | None))
