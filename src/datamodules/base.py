"""What the data modules of the tasks share: splits that are prepared once, and batches of them."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader

from config import process
from datamodules.batching import EvaluationBatches, LengthBatches, evaluation_batches
from datamodules.sources.source import SPLITS, Source
from datamodules.text import tokenizer as tokenizers
from datamodules.text.tokenizer import Corpus, Prepared


class Examples(Protocol):
    """A split's prepared examples. Those of different sizes have `lengths`, int [N]."""

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int]) -> Mapping[str, npt.NDArray[Any]]:
        """The arrays of a batch, by name."""
        ...


class PreparedData(pl.LightningDataModule):
    """The two splits of a source, each prepared once.

    A subclass says how a split is prepared (`_prepare`) and opened (`_open`), and what `describe` counts.

    Attributes:
        source: where the data comes from.
        root: of the cache.
        train_batches: the training order; the trainer sets its epoch and start.
    """

    train_batches: LengthBatches

    def __init__(self, source: Source, batch_size: int, eval_batch_size: int, workers: int, seed: int) -> None:
        """Takes settings; nothing is read yet.

        Args:
            source: where the data comes from.
            batch_size: examples per step, over all processes.
            eval_batch_size: examples per forward pass of one process.
            workers: processes that make batches; 0: this one (nothing is prepared by then).
            seed: of the training order.
        """
        super().__init__()
        self.source, self.root = source, source.root
        self.batch_size, self.eval_batch_size, self.workers, self.seed = batch_size, eval_batch_size, workers, seed
        self._folders: dict[str, Path] = {}
        self._opened: dict[str, Examples] = {}

    def _prepare(self, split: str) -> Path:
        """The cache entry of a split, built if need be."""
        raise NotImplementedError

    def _open(self, split: str) -> Examples:
        """Opens a split, and keeps it in public attributes."""
        raise NotImplementedError

    def _facts(self) -> dict[str, Any]:
        """What `describe` says of both splits."""
        raise NotImplementedError

    def _counts(self, split: str) -> dict[str, Any]:
        """What `describe` says of an open split."""
        raise NotImplementedError

    def prepare_data(self, splits: Sequence[str] = SPLITS) -> None:
        """Builds the caches of the splits, unless they are there.

        Raises:
            InputError: data that no model could be trained on.
        """
        for split in splits:
            self.folder(split)

    def folder(self, split: str) -> Path:
        """The cache entry of a split."""
        if split not in self._folders:
            self._folders[split] = self._prepare(split)
        return self._folders[split]

    def setup(self, stage: str | None = None) -> None:
        """Opens the validation split, and for stages "fit" and None the training split."""
        if "val" not in self._opened:
            self._opened["val"] = self._open("val")
        if stage in ("fit", None) and "train" not in self._opened:
            self._opened["train"] = self._open("train")
            sizes = _sizes(self._opened["train"])
            self.train_batches = LengthBatches(sizes, self.batch_size, self.seed, process.rank(), process.world_size())

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of this rank in the order of `train_batches`."""
        return self._loader("train", self.train_batches)

    def val_dataloader(self) -> DataLoader[Any]:
        """Batches of this rank; over all ranks each example once."""
        sizes = _sizes(self._opened["val"])
        batches = evaluation_batches(sizes, self.eval_batch_size, process.rank(), process.world_size())
        return self._loader("val", batches)

    def _loader(self, split: str, batches: LengthBatches | EvaluationBatches) -> DataLoader[Any]:
        return DataLoader(
            _Batches(self._opened[split]),
            sampler=batches,
            batch_size=None,
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.workers > 0,
        )

    @property
    def place(self) -> str:
        """Where the data comes from, whatever it is today."""
        return self.source.place

    @property
    def fingerprints(self) -> dict[str, str]:
        """By split."""
        return self.source.fingerprints

    def fingerprint(self, split: str) -> str:
        """Of a split's content; `repo@revision` for Hub data; with its limit, if it has one."""
        return self.source.fingerprint(split)

    def limit(self, split: str) -> int | None:
        """How many examples of a split count; None: all."""
        return self.source.limit(split)

    def expected(self, split: str) -> int | None:
        """How many examples there must be, as far as the configuration says it."""
        return self.source.expected(split)

    def files(self, split: str) -> list[str]:
        """The source files of a split, downloaded or generated if need be."""
        return self.source.files(split)

    def describe(self) -> dict[str, Any]:
        """Counts and places of what is open, for run.json."""
        described = {"source": self.source.kind, **self._facts()}
        for split in SPLITS:
            if split in self._opened:
                described[split] = {
                    "fingerprint": self.fingerprint(split),
                    "cache": str(self.folder(split)),
                    **self._counts(split),
                }
        return described


class TokenizedData(PreparedData):
    """Prepared data whose examples are tokens: it has a tokenizer, found or trained on the training split."""

    def __init__(
        self,
        source: Source,
        batch_size: int,
        eval_batch_size: int,
        workers: int,
        seed: int,
        tokenizer: Mapping[str, Any],
    ) -> None:
        """Takes settings; nothing is read yet.

        Args:
            source: see `PreparedData`, as the following.
            batch_size: examples per step.
            eval_batch_size: examples per forward pass.
            workers: processes.
            seed: of the training order.
            tokenizer: `pretrained`, `revision`, `tokenizer` and `vocab_size` of `datamodules.text.tokenizer.prepare`.
        """
        super().__init__(source, batch_size, eval_batch_size, workers, seed)
        self._tokenizer = dict(tokenizer)

    def _corpus(self) -> Corpus:
        """The texts of the training split, to learn a vocabulary from."""
        raise NotImplementedError

    @cached_property
    def prepared_tokenizer(self) -> Prepared:
        """The tokenizer's cache entry."""
        untrained = self._tokenizer["pretrained"] is None and self._tokenizer["tokenizer"] is None
        corpus = self._corpus() if untrained else None
        return tokenizers.prepare(self.root, **self._tokenizer, corpus=corpus, verify=self.source.verify)

    @property
    def vocab_size(self) -> int:
        """One more than the largest token id."""
        return self.prepared_tokenizer.vocab_size

    @property
    def pad_id(self) -> int:
        """The id that fills batches up."""
        return self.prepared_tokenizer.pad_id

    @property
    def uses_types(self) -> bool:
        """Whether batches have token type ids."""
        return self.prepared_tokenizer.uses_types

    def tokenizer(self) -> Any:
        """The transformers tokenizer, for export."""
        return self.prepared_tokenizer.load()


def _sizes(examples: Examples) -> npt.NDArray[Any] | int:
    """Lengths of examples, int [N]; their number where all are of one size."""
    lengths = getattr(examples, "lengths", None)
    return len(examples) if lengths is None else np.asarray(lengths)


class _Batches(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Lists of indices to batches: the loader's sampler yields whole batches."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(array) for name, array in self.examples.batch(indices).items()}
