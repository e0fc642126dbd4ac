"""The data of text classification: labelled texts of both splits as tokens, in batches."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from config.ranges import Keys, Range
from datamodules.base import TokenizedData
from datamodules.sources.locations import resolve_files
from datamodules.sources.source import Source
from datamodules.storage import arrays, cache
from datamodules.text import encoding, labelled_texts, records
from datamodules.text.encoding import EncodedTexts
from datamodules.text.labelled_texts import LabelledTexts
from datamodules.text.records import Columns
from datamodules.text.tokenizer import Corpus

logger = logging.getLogger(__name__)


class TextClassificationData(TokenizedData):
    """Texts, or pairs of texts, with a class each: from CSV, JSON Lines or Parquet files, from the Hub or generated.

    `prepare_data` (one process does the work, others wait) and `setup` both find everything in the cache once
    it is there. A batch is a dict of int64 tensors: input_ids, attention_mask, token_type_ids (if the
    tokenizer makes them) [B, L]; labels, index [B] (positions in the split).

    Attributes:
        val: the validation split's tokens and labels.
        train: those of the training split, after `setup("fit")`.
        columns: which column is what.
        max_length: tokens of a text.
    """

    val: EncodedTexts
    train: EncodedTexts

    def __init__(
        self,
        *,
        path: str | None = None,
        train_file: str | None = None,
        val_file: str | None = None,
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
        """Takes conf/data; nothing is read yet.

        Args:
            path: folder with both splits, local or an fsspec URL. It, or the files, come before `sample`,
                that before `hub`.
            train_file: the training file, by name in `path` or outright.
            val_file: the validation file, the same way.
            hub: `repo`, `revision`, and the files of `train` and `val` there.
            sample: `seed`, `train`, `val`, `classes` of `datamodules.samples.topics.write`.
            columns: `text`, `text_pair`, `label`, `id`: what the columns are called, see `records.Columns`.
            max_train: at most so many training texts, evenly over the classes; None for all.
            max_val: the same for validation.
            max_length: tokens of a text, or of a pair; the rest of a longer one is left out.
            batch_size: texts per step, over all processes.
            eval_batch_size: texts per forward pass of one process.
            workers: processes that make batches; 0: this one (nothing is tokenised by then).
            cache_dir: see `datamodules.storage.cache.root`.
            verify: "full" reads local files again even if they look unchanged.
            seed: of the training order.
            pretrained: checkpoint whose tokenizer is used unless `tokenizer` names another.
            revision: of `pretrained`, if it is a Hub name.
            tokenizer: folder, vocab.txt or tokenizer.json.
            vocab_size: of the vocabulary that is trained with neither.

        Raises:
            InputError: an unknown key of `columns`.
        """
        named = records.parse_columns(columns)
        source = Source(
            path=path,
            train_file=train_file,
            val_file=val_file,
            hub=hub,
            sample=sample,
            generator="topics",
            choice="topics_sample",
            limits={"train": max_train, "val": max_val},
            selection="balanced",
            layout=_layout,
            root=cache.root(cache_dir),
            verify=verify,
            variant=_variant(named),
        )
        tokens = {"pretrained": pretrained, "revision": revision, "tokenizer": tokenizer, "vocab_size": vocab_size}
        super().__init__(source, batch_size, eval_batch_size, workers, seed, tokens)
        self.columns, self.max_length = named, max_length
        self._texts: dict[str, LabelledTexts] = {}

    @cached_property
    def class_ids(self) -> list[str]:
        """The classes' ids in the order of the labels.

        Raises:
            InputError: fewer than two, or a class to validate on that training lacks.
        """
        return labelled_texts.classes(*(LabelledTexts(self._texts_folder(split)) for split in ("train", "val")))

    @property
    def classes(self) -> list[dict[str, str]]:
        """[{"id", "name"}, ...] in the order of the labels."""
        return [{"id": name, "name": name} for name in self.class_ids]

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_ids)

    @property
    def names(self) -> arrays.Texts:
        """[N] ids of the validation texts."""
        return self.texts("val").ids

    def texts(self, split: str) -> LabelledTexts:
        """The texts of a split, with their labels."""
        if split not in self._texts:
            self._texts[split] = LabelledTexts(self._texts_folder(split), self.class_ids)
        return self._texts[split]

    def encode(self, texts: Sequence[tuple[str, str] | str]) -> EncodedTexts:
        """Tokens, in memory, of texts to predict, or of (text, second text) pairs."""
        return EncodedTexts.of_records(self.prepared_tokenizer, texts, self.max_length)

    def _facts(self) -> dict[str, Any]:
        return {
            "tokenizer": self.prepared_tokenizer.source,
            "vocab_size": self.vocab_size,
            "classes": self.num_classes,
        }

    def _counts(self, split: str) -> dict[str, Any]:
        return dict((self.train if split == "train" else self.val).counts)

    def _texts_folder(self, split: str) -> Path:
        key = {"format": labelled_texts.FORMAT, "source": self.fingerprint(split), "columns": asdict(self.columns)}

        def build(folder: Path) -> None:
            files = self.files(split)
            logger.info("reading %s", ", ".join(files))
            labelled_texts.write(folder, files, self.columns, self.limit(split))

        return cache.entry(self.root, "labelled_texts", key, build)

    def _corpus(self) -> Corpus:
        return Corpus(self.fingerprint("train"), lambda: LabelledTexts(self._texts_folder("train")).corpus())

    def _prepare(self, split: str) -> Path:
        texts, tokenizer = self.texts(split), self.prepared_tokenizer
        key = {
            "format": encoding.FORMAT,
            "texts": self._texts_folder(split).name,
            "tokenizer": tokenizer.fingerprint,
            "max_length": self.max_length,
        }

        def build(folder: Path) -> None:
            encoding.write(folder, texts, tokenizer, self.max_length)

        return cache.entry(self.root, "encoded_texts", key, build)

    def _open(self, split: str) -> EncodedTexts:
        opened = EncodedTexts.open(self.folder(split), self.pad_id, self.uses_types, self.texts(split).labels)
        if opened.counts["cut_texts"]:
            logger.warning(
                "%s: %d of %d texts are longer than data.max_length=%d tokens and are cut off there",
                split,
                opened.counts["cut_texts"],
                opened.counts["texts"],
                self.max_length,
            )
        if split == "train":
            self.train = opened
        else:
            self.val = opened
        return opened


def _layout(
    path: str | None, train_file: str | None, val_file: str | None, splits: Sequence[str]
) -> dict[str, list[str]]:
    return resolve_files(path, train_file, val_file, {}, records.SUFFIXES, splits)


def _variant(columns: Columns) -> str:
    """What fingerprints say of columns that are not the usual ones: the same file with other columns is other data."""
    if columns == Columns():
        return ""
    return "columns-" + "-".join(str(name) for name in asdict(columns).values())
