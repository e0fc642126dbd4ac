"""Base classes of the data modules: splits that are prepared once, and batches of them."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
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
from datamodules.sources.splitting import Key, Pairs, mask
from datamodules.storage import cache, fingerprint
from datamodules.text import coverage
from datamodules.text import tokenizer as tokenizers
from datamodules.text.near_duplicates import near_pairs
from datamodules.text.tokenizer import Corpus, PreparedTokenizer

logger = logging.getLogger(__name__)


class PreparedSplit(Protocol):
    """The prepared examples of a split. Examples of different sizes have `lengths`, int [N]."""

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int]) -> Mapping[str, npt.NDArray[Any]]:
        """Return the arrays of a batch, by name."""
        ...


class PreparedData(pl.LightningDataModule):
    """Data module of the two splits of a source, each prepared once.

    A subclass implements how a split is prepared (`_prepare`) and opened (`_open`), and what `describe` reports.

    Attributes:
        source: where the data comes from.
        root: folder of the cache.
        train_batches: the training order; the trainer sets its epoch and start.
    """

    train_batches: LengthBatches

    def __init__(self, source: Source, batch_size: int, eval_batch_size: int, workers: int, seed: int) -> None:
        """Store the settings; nothing is read yet.

        Args:
            source: where the data comes from.
            batch_size: examples per step, over all processes.
            eval_batch_size: examples per forward pass of one process.
            workers: processes that load batches; 0: the main process. They start after the data is prepared.
            seed: of the training order.
        """
        super().__init__()
        self.source, self.root = source, source.root
        self.batch_size, self.eval_batch_size, self.workers, self.seed = batch_size, eval_batch_size, workers, seed
        self._folders: dict[str, Path] = {}
        self._splits: dict[str, PreparedSplit] = {}

    def _prepare(self, split: str) -> Path:
        """Return the cache entry of a split, built if necessary."""
        raise NotImplementedError

    def _open(self, split: str) -> PreparedSplit:
        """Open a split, and set the public attributes of the subclass."""
        raise NotImplementedError

    def _describe_data(self) -> dict[str, Any]:
        """Return what `describe` reports about both splits."""
        raise NotImplementedError

    def _describe_split(self, split: str) -> dict[str, Any]:
        """Return what `describe` reports about an open split."""
        raise NotImplementedError

    def prepare_data(self, splits: Sequence[str] = SPLITS) -> None:
        """Build the cache entries of the splits that have none.

        Raises:
            InputError: data that no model can be trained on.
        """
        for split in splits:
            self.folder(split)

    def folder(self, split: str) -> Path:
        """Return the cache entry of a split, built if necessary."""
        if split not in self._folders:
            self._folders[split] = self._prepare(split)
        return self._folders[split]

    def setup(self, stage: str | None = None) -> None:
        """Open the validation split, and for stages "fit" and None the training split."""
        if "val" not in self._splits:
            self._splits["val"] = self._open("val")
        if stage in ("fit", None) and "train" not in self._splits:
            self._splits["train"] = self._open("train")
            sizes = _sizes(self._splits["train"])
            self.train_batches = LengthBatches(sizes, self.batch_size, self.seed, process.rank(), process.world_size())

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the batches of this rank in the order of `train_batches`."""
        return self._loader("train", self.train_batches)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the batches of this rank; all ranks together have each example once."""
        sizes = _sizes(self._splits["val"])
        batches = evaluation_batches(sizes, self.eval_batch_size, process.rank(), process.world_size())
        return self._loader("val", batches)

    def _is_taken(self, split: str) -> bool:
        """Whether a split is a part of the training files."""
        return self.source.splitting.takes(self.source.part(split))

    def _loader(self, split: str, batches: LengthBatches | EvaluationBatches) -> DataLoader[Any]:
        return DataLoader(
            _BatchDataset(self._splits[split]),
            sampler=batches,
            batch_size=None,
            num_workers=self.workers,
            pin_memory=self._uses_gpu,
            persistent_workers=self.workers > 0,
        )

    @property
    def _uses_gpu(self) -> bool:
        """Whether batches are copied to a CUDA device; without a trainer, whether there is one."""
        if self.trainer is None:
            return torch.cuda.is_available()
        return self.trainer.strategy.root_device.type == "cuda"

    @property
    def origin(self) -> str:
        """Where the data comes from, independent of its present content."""
        return self.source.origin

    @property
    def verify(self) -> fingerprint.Verify:
        """Whether all files are read again ("full"), or those that have changed ("fast")."""
        return self.source.verify

    @property
    def fingerprints(self) -> dict[str, str]:
        """Fingerprint of each split."""
        return self.source.fingerprints

    def fingerprint(self, split: str) -> str:
        """Return the fingerprint of a split's content and limit; see `Source.fingerprint`."""
        return self.source.fingerprint(split)

    def limit(self, split: str) -> int | None:
        """Return the maximum number of examples of a split; None: no limit."""
        return self.source.limits.get(self.source.part(split))

    def evaluate_test(self) -> None:
        """Make the test part the one that is evaluated, in place of the validation part, before anything is read."""
        self.source = replace(self.source, evaluated="test")

    def expected(self, split: str) -> int | None:
        """Return the number of examples that the configuration requires of a split, if it does."""
        return self.source.expected(split)

    def files(self, split: str) -> list[str]:
        """Return the source files of a split, downloaded or generated if necessary."""
        return self.source.files(split)

    def describe(self) -> dict[str, Any]:
        """Return counts and locations of the open splits, for run.json."""
        description = {"source": self.source.kind, **self._describe_data()}
        if self.source.splitting:
            description["split"] = self.source.splitting.describe()
        for split in SPLITS:
            if split in self._splits:
                description[split] = {
                    "fingerprint": self.fingerprint(split),
                    "cache": str(self.folder(split)),
                    **self._describe_split(split),
                }
        return description


class TokenizedData(PreparedData):
    """Data module whose examples are tokens, of a loaded tokenizer or of one trained on the training split.

    A subclass sets `_tokenizer`: `pretrained`, `revision`, `tokenizer` and `vocab_size` of
    `datamodules.text.tokenizer.prepare`.
    """

    _tokenizer: Mapping[str, Any]

    def _corpus(self) -> Iterable[str]:
        """Return the texts of the training split, to train a vocabulary on."""
        raise NotImplementedError

    def _read_files(
        self,
        kind: str,
        split: str,
        key: Mapping[str, Any],
        write: Callable[[Path, list[str]], None],
        check: Callable[[Path], object],
    ) -> Path:
        """Return the cache entry of what is read from a split's files, built if necessary.

        Args:
            kind: of the entry.
            split: "train" or "val".
            key: what the content depends on, besides the fingerprint of the split.
            write: writes the content into a folder, given the files.
            check: opens the content; see `cache.entry`.
        """

        def build(folder: Path) -> None:
            files = self.files(split)
            logger.info("reading %s", ", ".join(files))
            write(folder, files)

        key = {**key, "source": self.fingerprint(split)}
        return cache.entry(self.root, kind, key, build, self.verify, check)

    def _part_mask(self, split: str, keys: Callable[[], Iterable[Key]]) -> npt.NDArray[np.bool_] | None:
        """Return which examples of the training files are a split; None if it has files of its own.

        Args:
            split: "train" or "val".
            keys: of the examples of the training files; see `sources.splitting`.
        """
        if not self._is_taken(split):
            return None

        def pairs(all_keys: Sequence[Key]) -> Pairs:
            return near_pairs(key.text for key in all_keys)

        source, content = self.source, self.source.content_fingerprint(split)
        part = source.part(split)
        return mask(self.root, source.splitting, part, content, source.variant, keys, pairs, self.verify)

    def _coverage(self, split: str, tokens: Path, count: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what the tokens of a split do not give back, counted once, and refuse a split that loses most.

        Args:
            split: "train" or "val".
            tokens: cache entry of its tokens.
            count: counts it; see `datamodules.text.coverage`.

        Raises:
            InputError: the tokenizer does not suit the texts.
        """

        def build(folder: Path) -> None:
            (folder / "counts.json").write_text(json.dumps(count(), ensure_ascii=False), encoding="utf-8")

        def read(folder: Path) -> dict[str, Any]:
            counts: dict[str, Any] = json.loads((folder / "counts.json").read_text(encoding="utf-8"))
            return counts

        key = {"format": coverage.FORMAT, "tokens": tokens.name}
        counts = read(cache.entry(self.root, "coverage", key, build, check=read))
        coverage.check(split, self.prepared_tokenizer.source, counts)
        return counts

    def _warn_truncated(self, split: str, counts: Mapping[str, int], kind: str, setting: str, limit: int) -> None:
        """Log a warning if some texts of a split are longer than the limit of a setting of `data`."""
        if count := counts[f"cut_{kind}"]:
            message = "%s: %d of %d %s are longer than data.%s=%d tokens and are truncated"
            logger.warning(message, split, count, counts[kind], kind, setting, limit)

    @cached_property
    def prepared_tokenizer(self) -> PreparedTokenizer:
        """The tokenizer's cache entry."""
        untrained = self._tokenizer["pretrained"] is None and self._tokenizer["tokenizer"] is None
        corpus = Corpus(self.fingerprint("train"), self._corpus) if untrained else None
        return tokenizers.prepare(self.root, **self._tokenizer, corpus=corpus, verify=self.verify)

    @property
    def vocab_size(self) -> int:
        """One more than the largest token id."""
        return self.prepared_tokenizer.vocab_size

    @property
    def pad_id(self) -> int:
        """Id of the padding token."""
        return self.prepared_tokenizer.pad_id

    @property
    def type_count(self) -> int:
        """Number of token types in the tokenizer's format of a pair."""
        return self.prepared_tokenizer.type_count

    @property
    def uses_types(self) -> bool:
        """Whether batches have token type ids, which models without token types ignore."""
        return self.prepared_tokenizer.uses_types

    def tokenizer(self) -> Any:
        """Return the transformers tokenizer, for export."""
        return self.prepared_tokenizer.load()


def _sizes(split: PreparedSplit) -> npt.NDArray[Any] | int:
    """Lengths of examples, int [N]; or their number, where all have one size."""
    lengths = getattr(split, "lengths", None)
    return len(split) if lengths is None else np.asarray(lengths)


class _BatchDataset(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Dataset indexed by lists of indices: the loader's sampler yields whole batches."""

    def __init__(self, split: PreparedSplit) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(array) for name, array in self.split.batch(indices).items()}
