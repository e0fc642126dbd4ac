"""The data of question answering: questions of both splits as windows of tokens, in batches."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from config.ranges import Keys, Range
from datamodules.base import TokenizedData
from datamodules.sources.locations import resolve_files
from datamodules.sources.source import Source
from datamodules.storage import cache
from datamodules.text import examples, squad, windows
from datamodules.text.examples import Examples
from datamodules.text.tokenizer import Corpus
from datamodules.text.windows import Limits, PairEncoder, Windows

logger = logging.getLogger(__name__)


class QuestionAnsweringData(TokenizedData):
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

    def __init__(
        self,
        *,
        path: str | None = None,
        train_file: str | None = None,
        val_file: str | None = None,
        hub: Mapping[str, Any] | None = None,
        sample: Annotated[Mapping[str, Any] | None, Keys("datamodules.samples.settings.Questions")] = None,
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
            sample: `seed`, `train`, `val`, `unanswerable` of `datamodules.samples.squad_sample.write`.
            max_train: the first so many training questions; None for all.
            max_val: the first so many validation questions.
            max_length: tokens of a window.
            stride: tokens by which the windows of one context overlap.
            max_query_length: tokens of a question; the rest of a longer one is cut off.
            version_2: whether a question may have no answer (SQuAD 2.0); None: as the data says.
            batch_size: windows per step, over all processes.
            eval_batch_size: windows per forward pass of one process.
            workers: processes that make batches; 0: this one (nothing is tokenised by then).
            cache_dir: see `datamodules.storage.cache.root`.
            verify: "full" reads local files again even if they look unchanged.
            seed: of the training order.
            pretrained: checkpoint whose tokenizer is used unless `tokenizer` names another.
            revision: of `pretrained`, if it is a Hub name.
            tokenizer: folder, vocab.txt or tokenizer.json.
            vocab_size: of the vocabulary that is trained with neither.
        """
        source = Source(
            path=path,
            train_file=train_file,
            val_file=val_file,
            hub=hub,
            sample=sample,
            generator="squad_sample",
            limits={"train": max_train, "val": max_val},
            selection="first",
            layout=partial(_layout, version_2),
            root=cache.root(cache_dir),
            verify=verify,
        )
        tokens = {"pretrained": pretrained, "revision": revision, "tokenizer": tokenizer, "vocab_size": vocab_size}
        super().__init__(source, batch_size, eval_batch_size, workers, seed, tokens)
        self.limits = Limits(max_length, stride, max_query_length)
        self.max_length = max_length
        self.version_2 = version_2

    @property
    def answerable_only(self) -> bool:
        """Whether every question has an answer: as configured, else as the splits that are open say."""
        if self.version_2 is not None:
            return not self.version_2
        opened = [getattr(self, name) for name in ("examples", "train_examples") if hasattr(self, name)]
        return not any(split.counts["unanswerable"] for split in opened)

    def windows_of(self, records: Sequence[tuple[str, str]]) -> Windows:
        """Windows, in memory, of (question, context) pairs to predict."""
        prepared = self.prepared_tokenizer
        encoder = PairEncoder(prepared.folder / "tokenizer.json")
        return Windows.of_records(encoder, records, self.limits, prepared.pad_id, prepared.uses_types)

    def _facts(self) -> dict[str, Any]:
        return {
            "tokenizer": self.prepared_tokenizer.source,
            "vocab_size": self.vocab_size,
            "answerable_only": self.answerable_only,
        }

    def _counts(self, split: str) -> dict[str, Any]:
        prefix = "train_" if split == "train" else ""
        read: Examples = getattr(self, f"{prefix}examples")
        cut: Windows = getattr(self, f"{prefix}windows")
        return {**{key: value for key, value in read.counts.items() if key != "example"}, **cut.counts}

    def _examples_folder(self, split: str) -> Path:
        key = {"format": examples.FORMAT, "source": self.fingerprint(split), "version_2": self.version_2}

        def build(folder: Path) -> None:
            files = self.files(split)
            logger.info("reading %s", ", ".join(files))
            examples.write(folder, squad.read(files, self.version_2), self.limit(split), ", ".join(files))

        return cache.entry(self.root, "examples", key, build)

    def _corpus(self) -> Corpus:
        return Corpus(self.fingerprint("train"), lambda: Examples(self._examples_folder("train")).texts())

    def _prepare(self, split: str) -> Path:
        read, prepared, training = self._examples_folder(split), self.prepared_tokenizer, split == "train"
        limits = self.limits
        key = {
            "format": windows.FORMAT,
            "examples": read.name,
            "tokenizer": prepared.fingerprint,
            "training": training,
            "max_length": limits.max_length,
            "stride": limits.stride,
            "max_query_length": limits.max_query_length,
        }

        def build(folder: Path) -> None:
            tokenizer = prepared.folder / "tokenizer.json"
            windows.write(folder, Examples(read), tokenizer, prepared.vocab_size, limits, training)

        return cache.entry(self.root, "windows", key, build)

    def _open(self, split: str) -> Windows:
        folder = self.folder(split)
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
        if split == "train":
            self.train_examples, self.train_windows = read, opened
        else:
            self.examples, self.windows = read, opened
        return opened


def _layout(
    version_2: bool | None, path: str | None, train_file: str | None, val_file: str | None, splits: Sequence[str]
) -> dict[str, list[str]]:
    return resolve_files(path, train_file, val_file, squad.official(version_2), squad.SUFFIXES, splits)
