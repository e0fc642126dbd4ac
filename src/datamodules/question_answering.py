"""The data of question answering: questions of both splits as windows of tokens, in batches."""

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader

from config import process
from config.ranges import Keys, Range
from datamodules import cache, examples, fingerprint, sources, squad, windows
from datamodules.batching import EvaluationBatches, LengthBatches, evaluation_batches
from datamodules.examples import Examples
from datamodules.tokenizer import Corpus, Prepared, prepare
from datamodules.windows import Encoder, Limits, Windows

logger = logging.getLogger(__name__)


class QuestionAnsweringData(pl.LightningDataModule):
    """SQuAD 1.1 and 2.0, or data in their layouts, from a folder, from the Hub or generated.

    `prepare_data` (one process does the work, others wait) and `setup` both find everything in the cache once
    it is there. A batch is a dict of int64 tensors: input_ids, attention_mask, token_type_ids (if the
    tokenizer makes them) [B, L]; start_positions, end_positions, window [B].

    Attributes:
        examples: the validation split's questions.
        windows: the validation split's windows.
        train_examples: the training split's questions, after `setup("fit")`.
        train_windows: the training split's windows, after `setup("fit")`.
        train_batches: the training order; the trainer sets its epoch and start.
        answerable_only: every question has an answer (SQuAD 1.1), so that "no answer" is none.
        fingerprints: of each split's content, its row limit included.
    """

    examples: Examples
    windows: Windows
    train_examples: Examples
    train_windows: Windows
    train_batches: LengthBatches

    def __init__(
        self,
        *,
        path: str | None = None,
        train_file: str | None = None,
        val_file: str | None = None,
        hub: Mapping[str, Any] | None = None,
        sample: Annotated[Mapping[str, Any] | None, Keys("datamodules.squad_sample.write", ("folder",))] = None,
        max_train: Annotated[int, Range(low=1)] | None = None,
        max_val: Annotated[int, Range(low=1)] | None = None,
        max_length: Annotated[int, Range(low=8, high=1_000_000)] = 384,
        stride: Annotated[int, Range(low=0)] = 128,
        max_query_length: Annotated[int, Range(low=1)] = 64,
        version_2: bool | None = None,
        batch_size: Annotated[int, Range(low=1, high=1_000_000)] = 12,
        eval_batch_size: Annotated[int, Range(low=1, high=1_000_000)] = 32,
        workers: Annotated[int, Range(low=0, high=1024)] = 0,
        cache_dir: str | None = None,
        verify: Literal["fast", "full"] = "fast",
        seed: Annotated[int, Range(low=0)] = 0,
        pretrained: str | None = None,
        revision: str | None = None,
        tokenizer: str | None = None,
        vocab_size: Annotated[int, Range(low=100, high=10_000_000)] | None = None,
    ) -> None:
        """Takes conf/data; nothing is read yet.

        Args:
            path: folder with both splits, local or an fsspec URL. It, or the files, come before `sample`,
                that before `hub`.
            train_file: the training file, by name in `path` or outright.
            val_file: the validation file, the same way.
            hub: `repo`, `revision`, and the files of `train` and `val` there.
            sample: `seed`, `train`, `val`, `unanswerable` of `datamodules.squad_sample.write`.
            max_train: the first so many training questions; None for all.
            max_val: the first so many validation questions.
            max_length: tokens of a window.
            stride: tokens by which the windows of one context overlap.
            max_query_length: tokens of a question; the rest of a longer one is cut off.
            version_2: whether a question may have no answer (SQuAD 2.0); None: as the data says.
            batch_size: windows per step, over all processes.
            eval_batch_size: windows per forward pass of one process.
            workers: processes that make batches; 0: this one (nothing is tokenised by then).
            cache_dir: see `datamodules.cache.root`.
            verify: "full" reads local files again even if they look unchanged.
            seed: of the training order.
            pretrained: checkpoint whose tokenizer is used unless `tokenizer` names another.
            revision: of `pretrained`, if it is a Hub name.
            tokenizer: folder, vocab.txt or tokenizer.json.
            vocab_size: of the vocabulary that is trained with neither.
        """
        super().__init__()
        self._files = {"path": path, "train_file": train_file, "val_file": val_file}
        self._hub, self._sample = hub, sample
        self._limit = {"train": max_train, "val": max_val}
        self.limits = Limits(max_length, stride, max_query_length)
        self.max_length = max_length
        self.version_2 = version_2
        self.batch_size, self.eval_batch_size, self.workers = batch_size, eval_batch_size, workers
        self.root = cache.root(cache_dir)
        self._verify = verify
        self.seed = seed
        self._tokenizer: dict[str, Any] = {
            "pretrained": pretrained,
            "revision": revision,
            "tokenizer": tokenizer,
            "vocab_size": vocab_size,
        }
        self._folders: dict[str, Path] = {}

    # -- what there is

    def prepare_data(self, splits: Sequence[str] = ("train", "val")) -> None:
        """Builds the caches of the splits, unless they are there."""
        for split in splits:
            self._windows_folder(split)

    def setup(self, stage: str | None = None) -> None:
        """Opens the validation split, and for stages "fit" and None the training split."""
        if not hasattr(self, "windows"):
            self.examples, self.windows = self._open("val")
        if stage in ("fit", None) and not hasattr(self, "train_windows"):
            self.train_examples, self.train_windows = self._open("train")
            self.train_batches = LengthBatches(
                self.train_windows.lengths, self.batch_size, self.seed, process.rank(), process.world_size()
            )

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of this rank in the order of `train_batches`."""
        return self._loader(self.train_windows, self.train_batches)

    def val_dataloader(self) -> DataLoader[Any]:
        """Batches of this rank; over all ranks each window once."""
        batches = evaluation_batches(self.windows.lengths, self.eval_batch_size, process.rank(), process.world_size())
        return self._loader(self.windows, batches)

    def _loader(self, opened: Windows, batches: LengthBatches | EvaluationBatches) -> DataLoader[Any]:
        return DataLoader(
            _Batches(opened),
            sampler=batches,
            batch_size=None,
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.workers > 0,
        )

    @property
    def answerable_only(self) -> bool:
        """Whether every question has an answer: as configured, else as the splits that are open say."""
        if self.version_2 is not None:
            return not self.version_2
        opened = [getattr(self, name) for name in ("examples", "train_examples") if hasattr(self, name)]
        return not any(each.counts["unanswerable"] for each in opened)

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

    def windows_of(self, records: Sequence[tuple[str, str]]) -> Windows:
        """Windows, in memory, of (question, context) pairs to predict."""
        ours = self.prepared_tokenizer
        encoder = Encoder(ours.folder / "tokenizer.json")
        return Windows.of_records(encoder, records, self.limits, ours.pad_id, ours.uses_types)

    @property
    def fingerprints(self) -> dict[str, str]:
        """By split."""
        return {split: self.fingerprint(split) for split in ("train", "val")}

    def fingerprint(self, split: str) -> str:
        """Of a split's content; `repo@revision` for Hub data; with its row limit, if it has one."""
        source = self._source_fingerprints[split] if self._kind != "path" else self._local_fingerprint(split)
        limit = self._limit[split]
        return source if limit is None else f"{source}:first-{limit}"

    def describe(self) -> dict[str, Any]:
        """Counts and places of what is open, for run.json."""
        about: dict[str, Any] = {
            "source": self._kind,
            "tokenizer": self.prepared_tokenizer.source,
            "vocab_size": self.vocab_size,
            "answerable_only": self.answerable_only,
        }
        for split, prefix in (("train", "train_"), ("val", "")):
            if hasattr(self, f"{prefix}windows"):
                opened: Examples = getattr(self, f"{prefix}examples")
                about[split] = {
                    "fingerprint": self.fingerprint(split),
                    "cache": str(self._folders[split]),
                    **{key: value for key, value in opened.counts.items() if key != "example"},
                    **getattr(self, f"{prefix}windows").counts,
                }
        return about

    # -- where it comes from

    @property
    def _kind(self) -> str:
        return sources.kind(self._files, self._sample, self._hub, "squad_sample")

    @cached_property
    def _source_fingerprints(self) -> dict[str, str]:
        if self._kind == "sample":
            return {split: f"squad_sample-{self._sample_folder.name}:{split}" for split in ("train", "val")}
        return {split: sources.fingerprint_of(self._hub or {}, split) for split in ("train", "val")}

    def _local_fingerprint(self, split: str) -> str:
        cached: dict[str, str] = self.__dict__.setdefault("_fingerprints", {})
        if split not in cached:
            cached[split] = fingerprint.of_files(self.files(split), self.root, self._verify)
        return cached[split]

    def limit(self, split: str) -> int | None:
        """How many questions of a split count, the first ones; None: all."""
        return self._limit[split]

    @property
    def place(self) -> str:
        """Where it comes from, whatever is there today."""
        return sources.place(self._kind, self._files, self._sample, self._hub)

    def expected(self, split: str) -> int | None:
        """How many questions there must be, as far as the configuration says it."""
        return sources.expected(self._sample if self._kind == "sample" else None, self._limit[split], split)

    def files(self, split: str) -> list[str]:
        """The source files of a split, downloaded or generated if need be."""
        if self._kind == "hub":
            hub = dict(self._hub or {})
            return sources.hub(hub["repo"], hub["revision"], hub[split])
        given = {"path": str(self._sample_folder)} if self._kind == "sample" else self._files
        found = sources.resolve(
            **given, official=squad.official(self.version_2), suffixes=squad.SUFFIXES, splits=(split,)
        )
        return found[split]

    @cached_property
    def _sample_folder(self) -> Path:
        from datamodules import squad_sample

        return sources.sample(self.root, squad_sample, self._sample or {})

    # -- how it is prepared

    def _examples_folder(self, split: str) -> Path:
        key = {"format": examples.FORMAT, "source": self.fingerprint(split), "version_2": self.version_2}

        def build(folder: Path) -> None:
            files = self.files(split)
            logger.info("reading %s", ", ".join(files))
            examples.write(folder, squad.read(files, self.version_2), self._limit[split], ", ".join(files))

        return cache.entry(self.root, "examples", key, build)

    @cached_property
    def prepared_tokenizer(self) -> Prepared:
        """The tokenizer's cache entry."""
        corpus = None
        if self._tokenizer["pretrained"] is None and self._tokenizer["tokenizer"] is None:
            corpus = Corpus(self.fingerprint("train"), lambda: Examples(self._examples_folder("train")).texts())
        return prepare(self.root, **self._tokenizer, corpus=corpus, verify=self._verify)

    def _windows_folder(self, split: str) -> Path:
        if split in self._folders:
            return self._folders[split]
        read, ours, training = self._examples_folder(split), self.prepared_tokenizer, split == "train"
        limits = self.limits
        key = {
            "format": windows.FORMAT,
            "examples": read.name,
            "tokenizer": ours.fingerprint,
            "training": training,
            "max_length": limits.max_length,
            "stride": limits.stride,
            "max_query_length": limits.max_query_length,
        }

        def build(folder: Path) -> None:
            windows.write(folder, Examples(read), ours.folder / "tokenizer.json", ours.vocab_size, limits, training)

        self._folders[split] = cache.entry(self.root, "windows", key, build)
        return self._folders[split]

    def _open(self, split: str) -> tuple[Examples, Windows]:
        folder = self._windows_folder(split)
        read = Examples(self._examples_folder(split))
        read.warn(split)
        opened = Windows.open(folder, self.pad_id, self.uses_types)
        if opened.counts["cut_questions"]:
            logger.warning(
                "%s: %d question(s) are longer than data.max_query_length=%d tokens and are cut off there",
                split,
                opened.counts["cut_questions"],
                self.limits.max_query_length,
            )
        return read, opened


class _Batches(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Lists of windows to batches: the loader's sampler yields whole batches."""

    def __init__(self, opened: Windows) -> None:
        self.windows = opened

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, chosen: Sequence[int]) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(array) for name, array in self.windows.batch(chosen).items()}
