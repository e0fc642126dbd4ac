"""Data module of question answering: the questions of both splits as windows of tokens, in batches."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import compress
from pathlib import Path
from typing import Annotated, Any, Literal

from config.ranges import Keys, Range
from datamodules.base import TokenizedData
from datamodules.sources.locations import Names, resolve_files
from datamodules.sources.source import Source
from datamodules.sources.splitting import TEXT, Key, Splitting, normalise
from datamodules.storage import cache
from datamodules.text import columns as column_names
from datamodules.text import coverage, examples, squad, windows
from datamodules.text.examples import Examples
from datamodules.text.question_rows import Columns, Question
from datamodules.text.reading import TABLE
from datamodules.text.windows import Limits, PairEncoder, Windows


class QuestionAnsweringData(TokenizedData):
    """Data module of SQuAD 1.1 and 2.0, or of data in their layouts: from files, from the Hub or generated.

    `prepare_data` fills the cache (one process does the work, others wait), `setup` opens it. A batch is a dict of
    int64 tensors: input_ids, attention_mask, token_type_ids (if the tokenizer has several) [B, L]; start_positions,
    end_positions, window [B].

    Attributes:
        examples: the validation split's questions.
        windows: the validation split's windows.
        train_examples: the training split's questions, after `setup("fit")`.
        train_windows: the training split's windows, after `setup("fit")`.
        train_batches: the training order; the trainer sets its epoch and start.
        limits: sizes of windows, in tokens.
        max_length: maximum number of tokens of a window.
        columns: names of the columns of tables.
        version_2: as in the configuration.
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
        test_file: str | None = None,
        split: Annotated[float, Range(above=0, below=1)] | None = None,
        test_split: Annotated[float, Range(above=0, below=1)] | None = None,
        split_seed: Annotated[int, Range(low=0)] = 0,
        group: str | None = None,
        group_near_duplicates: bool = True,
        hub: Mapping[str, Any] | None = None,
        sample: Annotated[Mapping[str, Any] | None, Keys("datamodules.samples.settings.Questions")] = None,
        columns: Annotated[Mapping[str, Any] | None, Keys("datamodules.text.question_rows.Columns")] = None,
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
        """Store the settings of conf/data; nothing is read yet.

        Args:
            path: folder with both splits, local or an fsspec URL. It, or the files, take precedence over `sample`,
                which takes precedence over `hub`.
            train_file: the training file, relative to `path` or by its own path.
            val_file: the validation file, likewise.
            test_file: the test file, likewise; it is read by `python -m trainers evaluate --split test` only.
            split: share of the training file that is the validation part, if that has no file of its own.
            test_split: share of the training file that is the test part.
            split_seed: of the choice of these parts; see `sources.splitting`.
            group: column, or key of nested articles, whose equal values are in the same part; "context": those of a paragraph.
            group_near_duplicates: whether near-duplicates are, too; see `text.near_duplicates`.
            hub: `repo`, `revision`, and the files of `train` and `val` in it.
            sample: `seed`, `train`, `val`, `unanswerable` of `datamodules.samples.squad_sample.write`.
            columns: names of the columns of tables, see `question_rows.Columns`.
            max_train: maximum number of training questions, the first of the file; None: all.
            max_val: maximum number of validation questions.
            max_length: maximum number of tokens of a window.
            stride: overlap of the windows of a context, in tokens.
            max_query_length: maximum number of tokens of a question; longer ones are truncated.
            version_2: whether a question may have no answer (SQuAD 2.0); None: as the data indicates.
            batch_size: windows per step, over all processes.
            eval_batch_size: windows per forward pass of one process.
            workers: processes that load batches; 0: the main process.
            cache_dir: see `datamodules.storage.cache.root`.
            verify: "full" reads local files and cache entries again even if they look unchanged.
            seed: of the training order.
            pretrained: checkpoint whose tokenizer is used without `tokenizer`.
            revision: of `pretrained`, if it is a Hub name.
            tokenizer: folder, vocab.txt or tokenizer.json.
            vocab_size: of the vocabulary that is trained without `pretrained` and `tokenizer`.

        Raises:
            InputError: an unknown key of `columns`.
        """
        self.columns = column_names.parse(Columns, columns)
        official = squad.official_names(version_2)
        source = Source(
            names=Names(path, train_file, val_file, test_file),
            hub=hub,
            sample=sample,
            generator="squad_sample",
            limits={"train": max_train, "val": max_val},
            selection="first",
            layout=lambda names, part, undivided: resolve_files(names, part, official, squad.SUFFIXES, undivided),
            root=cache.root(cache_dir),
            verify=verify,
            variant=column_names.variant(self.columns),
            splitting=Splitting(split, test_split, split_seed, group, group_near_duplicates),
        )
        super().__init__(source, batch_size, eval_batch_size, workers, seed)
        self._tokenizer = {
            "pretrained": pretrained,
            "revision": revision,
            "tokenizer": tokenizer,
            "vocab_size": vocab_size,
        }
        self.limits = Limits(max_length, stride, max_query_length)
        self.max_length = max_length
        self.version_2 = version_2
        self._counts: dict[str, dict[str, Any]] = {}  # of `coverage`, by split

    @property
    def answerable_only(self) -> bool:
        """Whether all questions have an answer: as configured, else from the open splits."""
        if self.version_2 is not None:
            return not self.version_2
        splits = [getattr(self, name) for name in ("examples", "train_examples") if hasattr(self, name)]
        return not any(split.counts["unanswerable"] for split in splits)

    def _describe_data(self) -> dict[str, Any]:
        return {
            "tokenizer": self.prepared_tokenizer.source,
            "vocab_size": self.vocab_size,
            "answerable_only": self.answerable_only,
        }

    def _describe_split(self, split: str) -> dict[str, Any]:
        prefix = "train_" if split == "train" else ""
        question_counts = getattr(self, f"{prefix}examples").counts
        window_counts = getattr(self, f"{prefix}windows").counts
        counts = {**question_counts, **window_counts, **self._counts[split]}
        examples_for_messages = ("example", "unrecoverable_answer")
        return {key: value for key, value in counts.items() if key not in examples_for_messages}

    def questions(self, split: str, version_2: bool | None) -> Iterator[Question]:
        """Yield the questions of a split, beyond its limit too; see `squad.read`."""
        group = self.source.splitting.group if self._is_taken(split) else None
        rows = squad.read(self.files(split), version_2, self.columns, group=group)
        mask = self._part_mask(split, self._split_keys)
        return rows if mask is None else compress(rows, mask)

    def _split_keys(self) -> Iterator[Key]:
        """What keeps questions together: their document, or the value of `data.group`, and equal contexts."""
        group = self.source.splitting.group
        for question in squad.read(self.files("train"), True, self.columns, group=group):
            name = question.title if group is None else question.group
            names = [f"group {name}"] if name else []
            yield Key((f"{TEXT}{normalise(question.context)}", *names))

    def _examples_folder(self, split: str) -> Path:
        def write(folder: Path, files: list[str]) -> None:
            examples.write(folder, self.questions(split, self.version_2), self.limit(split), ", ".join(files))

        key: dict[str, Any] = {"format": examples.FORMAT, "version_2": self.version_2}
        if self.columns != Columns():
            key["columns"] = asdict(self.columns)
        if self.source.kind == "path" and any(TABLE.search(file) for file in self.files(split)):
            key["tables"] = 2  # since their rows without an id have a hash of the content
        return self._read_files("examples", split, key, write, Examples)

    def _corpus(self) -> Iterable[str]:
        return Examples(self._examples_folder("train")).texts()

    def _prepare(self, split: str) -> Path:
        examples_folder, tokenizer = self._examples_folder(split), self.prepared_tokenizer
        training = split == "train"
        key = {
            "format": windows.FORMAT,
            "examples": examples_folder.name,
            "tokenizer": tokenizer.fingerprint,
            "training": training,
            **asdict(self.limits),
            # Since its white space at the start is removed, which other tokenizers never noticed.
            **({"questions": "stripped"} if tokenizer.leading_space else {}),
        }

        def build(folder: Path) -> None:
            file = tokenizer.folder / "tokenizer.json"
            windows.write(folder, Examples(examples_folder), file, tokenizer.vocab_size, self.limits, training)

        def check(folder: Path) -> None:
            split_windows = Windows.open(folder, tokenizer.pad_id, tokenizer.uses_types)
            split_windows.check(tokenizer.vocab_size, len(Examples(examples_folder)))

        folder = cache.entry(self.root, "windows", key, build, self.verify, check)

        def count() -> dict[str, Any]:
            split_windows = Windows.open(folder, tokenizer.pad_id, tokenizer.uses_types)
            special = PairEncoder(tokenizer.folder / "tokenizer.json").special
            return coverage.count_windows(split_windows, Examples(examples_folder), tokenizer.unknown_id, special)

        self._counts[split] = self._coverage(split, folder, count)
        return folder

    def _open(self, split: str) -> Windows:
        questions = Examples(self._examples_folder(split))
        questions.warn(split)
        split_windows = Windows.open(self.folder(split), self.pad_id, self.uses_types)
        limit = self.limits.max_query_length
        self._warn_truncated(split, split_windows.counts, "questions", "max_query_length", limit)
        coverage.warn(split, self.prepared_tokenizer.source, self._counts[split])
        if split == "train":
            self.train_examples, self.train_windows = questions, split_windows
        else:
            self.examples, self.windows = questions, split_windows
        return split_windows
