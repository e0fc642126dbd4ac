"""Data module of text classification: the labelled texts of both splits as tokens, in batches."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from config.ranges import Keys, Range
from datamodules.base import TokenizedData
from datamodules.sources.locations import Names, resolve_files
from datamodules.sources.source import SPLITS, Source
from datamodules.sources.splitting import TEXT, Key, Splitting, normalise
from datamodules.storage import cache
from datamodules.storage.arrays import TextArray
from datamodules.text import columns as column_names
from datamodules.text import coverage, encoding, labelled_texts, records
from datamodules.text.encoding import EncodedTexts, TextEncoder
from datamodules.text.labelled_texts import LabelledTexts
from datamodules.text.records import Columns, LabelSurvey, Record


class TextClassificationData(TokenizedData):
    """Data module of labelled texts, or pairs of texts: from CSV, TSV, JSON Lines or Parquet files, the Hub or generated.

    `prepare_data` fills the cache (one process does the work, others wait), `setup` opens it. A batch is a dict of
    int64 tensors: input_ids, attention_mask, token_type_ids (if the tokenizer has several) [B, L]; labels, index [B]
    (positions in the split).

    Attributes:
        val: the validation split's tokens and labels.
        train: those of the training split, after `setup("fit")`.
        columns: names of the columns.
        max_length: maximum number of tokens of a text.
    """

    val: EncodedTexts
    train: EncodedTexts

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
        sample: Annotated[Mapping[str, Any] | None, Keys("datamodules.samples.settings.Topics")] = None,
        columns: Annotated[Mapping[str, Any] | None, Keys("datamodules.text.records.Columns")] = None,
        max_train: Annotated[int, Range(low=1)] | None = None,
        max_val: Annotated[int, Range(low=1)] | None = None,
        max_length: Annotated[int, Range(low=8, high=1_000_000)] = 256,
        batch_size: Annotated[int, Range(low=1, high=1_000_000)] = 32,
        eval_batch_size: Annotated[int, Range(low=1, high=1_000_000)] = 64,
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
            group: column whose equal values are in the same part.
            group_near_duplicates: whether near-duplicates are, too; see `text.near_duplicates`.
            hub: `repo`, `revision`, and the files of `train` and `val` in it.
            sample: `seed`, `train`, `val`, `classes` of `datamodules.samples.topics.write`.
            columns: `text`, `text_pair`, `label`, `id`: names of the columns, see `records.Columns`.
            max_train: maximum number of training texts, spread evenly over the classes; None: all.
            max_val: maximum number of validation texts, likewise.
            max_length: maximum number of tokens of a text, or of a pair; longer ones are truncated.
            batch_size: texts per step, over all processes.
            eval_batch_size: texts per forward pass of one process.
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
        source = Source(
            names=Names(path, train_file, val_file, test_file),
            hub=hub,
            sample=sample,
            generator="topics",
            choice="topics_sample",
            limits={"train": max_train, "val": max_val},
            selection="balanced",
            layout=lambda names, part, undivided: resolve_files(
                names, part, suffixes=records.SUFFIXES, undivided=undivided
            ),
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
        self.max_length = max_length
        self._texts: dict[str, LabelledTexts] = {}
        self._counts: dict[str, dict[str, Any]] = {}  # of `coverage`, by split

    @cached_property
    def class_ids(self) -> list[str]:
        """The classes' ids in the order of the labels.

        Raises:
            InputError: fewer than two, or validation texts of a class without training texts.
        """
        return labelled_texts.resolve_classes(*(LabelledTexts(self._texts_folder(split)) for split in SPLITS))

    @property
    def classes(self) -> list[dict[str, str]]:
        """[{"id", "name"}, ...] in the order of the labels."""
        return [{"id": name, "name": name} for name in self.class_ids]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_ids)

    @property
    def names(self) -> TextArray:
        """[N] ids of the validation texts."""
        return self.texts("val").ids

    def texts(self, split: str) -> LabelledTexts:
        """Return the texts of a split, with their labels."""
        if split not in self._texts:
            self._texts[split] = LabelledTexts(self._texts_folder(split), self.class_ids)
        return self._texts[split]

    def _describe_data(self) -> dict[str, Any]:
        return {
            "tokenizer": self.prepared_tokenizer.source,
            "vocab_size": self.vocab_size,
            "classes": self.num_classes,
        }

    def _describe_split(self, split: str) -> dict[str, Any]:
        return {**getattr(self, split).counts, **self._counts[split]}

    def survey(self, split: str) -> LabelSurvey:
        """Return the labels of a split's files."""
        labels = records.survey(self.files(split), self.columns)
        return replace(labels, selected=self._part_mask(split, self._split_keys))

    def records(self, split: str) -> Iterator[Record]:
        """Yield the rows of a split, up to its limit, valid or not."""
        has_survey = self.limit(split) is not None or bool(self.source.splitting)
        return self._read(split, self.survey(split) if has_survey else None)

    def _read(self, split: str, survey: LabelSurvey | None) -> Iterator[Record]:
        group = self.source.splitting.group if self.source.splitting.takes(self.source.part(split)) else None
        return records.read(self.files(split), self.columns, self.limit(split), labels=survey, group=group)

    def _split_keys(self) -> Iterator[Key]:
        """What keeps texts together: equal texts, and the value of `data.group`; each class gets its share."""
        group = self.source.splitting.group
        for record in records.read(self.files("train"), self.columns, labelled=False, group=group):
            text = f"{TEXT}{normalise(record.text or '')}\0{normalise(record.pair)}"
            names = () if group is None else (f"group {record.group}",)
            yield Key((text, *names), record.label or "")

    def _texts_folder(self, split: str) -> Path:
        def write(folder: Path, files: list[str]) -> None:
            survey = self.survey(split)
            labelled_texts.write(folder, survey, self._read(split, survey), ", ".join(files))

        key = {"format": labelled_texts.FORMAT, "columns": asdict(self.columns)}
        return self._read_files("labelled_texts", split, key, write, LabelledTexts)

    def _corpus(self) -> Iterable[str]:
        return LabelledTexts(self._texts_folder("train")).corpus()

    def _prepare(self, split: str) -> Path:
        texts, tokenizer = self.texts(split), self.prepared_tokenizer
        key = {
            "format": encoding.FORMAT,
            "texts": self._texts_folder(split).name,
            "tokenizer": tokenizer.fingerprint,
            "max_length": self.max_length,
        }

        def open_folder(folder: Path) -> EncodedTexts:
            return EncodedTexts.open(folder, tokenizer.pad_id, tokenizer.uses_types)

        folder = cache.entry(
            self.root,
            "encoded_texts",
            key,
            lambda folder: encoding.write(folder, texts, tokenizer, self.max_length),
            self.verify,
            lambda folder: open_folder(folder).check(tokenizer.vocab_size),
        )

        def count() -> dict[str, Any]:
            encoded = open_folder(folder)
            special = TextEncoder(tokenizer, self.max_length).special
            return coverage.count_texts(encoded, texts, tokenizer.unknown_id, special)

        self._counts[split] = self._coverage(split, folder, count)
        return folder

    def _open(self, split: str) -> EncodedTexts:
        texts = EncodedTexts.open(self.folder(split), self.pad_id, self.uses_types)
        texts.labels = self.texts(split).labels
        self._warn_truncated(split, texts.counts, "texts", "max_length", self.max_length)
        coverage.warn(split, self.prepared_tokenizer.source, self._counts[split])
        setattr(self, split, texts)
        return texts
