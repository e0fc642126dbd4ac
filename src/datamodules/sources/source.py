"""A data set's source: files of yours, files on the Hugging Face Hub, or generated ones."""

import importlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from config.errors import InputError
from datamodules.sources import hub
from datamodules.storage import cache, fingerprint

SPLITS = ("train", "val")

# Arguments: folder, training file, validation file, splits; returns the files by split.
Layout = Callable[[str | None, str | None, str | None, Sequence[str]], Mapping[str, list[str]]]


@dataclass(frozen=True)
class Source:
    """Where both splits of a data set come from, and how much of them counts.

    Of several settings the first counts: files of yours, a sample, the Hub.

    Attributes:
        path: folder with both splits, local or an fsspec URL.
        train_file: the training file, by name in `path` or outright.
        val_file: the validation file, the same way.
        hub: `repo`, `revision`, and the files of `train` and `val` there.
        sample: settings of the generator.
        generator: module of `datamodules.samples` with `write(folder, **settings)`.
        limits: examples that count of a split; None: all.
        selection: how a limit chooses; part of fingerprints: "first", or "balanced" over classes.
        layout: finds the files of a split in a folder.
        root: of the cache.
        verify: "full" reads local files again even if they look unchanged.
        content: fingerprint of a split of your files; None: of its files' names and contents.
        variant: part of fingerprints: what else the examples depend on; "" for nothing.
        choice: of conf/data that needs no files, for messages; "": as the generator is called.
    """

    path: str | None
    train_file: str | None
    val_file: str | None
    hub: Mapping[str, Any] | None
    sample: Mapping[str, Any] | None
    generator: str
    limits: Mapping[str, int | None]
    selection: str
    layout: Layout
    root: Path
    verify: fingerprint.Verify = "fast"
    content: Callable[[str], str] | None = None
    variant: str = ""
    choice: str = ""

    @property
    def kind(self) -> Literal["path", "sample", "hub"]:
        """Which of the settings counts.

        Raises:
            InputError: there is none.
        """
        if any(value is not None for value in (self.path, self.train_file, self.val_file)):
            return "path"
        if self.sample is not None:
            return "sample"
        if self.hub is not None:
            return "hub"
        raise InputError(
            "no data: give data.path=<folder>, data.train_file and data.val_file, or choose "
            f"data={self.choice or self.generator}"
        )

    @property
    def place(self) -> str:
        """Where the data comes from, whatever it is today: runs on the same place are runs on versions of one data set."""
        if self.kind == "path":
            names = (self.path, self.train_file, self.val_file)
            return json.dumps([name and (name if "://" in name else str(Path(name).absolute())) for name in names])
        return (
            str((self.hub or {})["repo"]) if self.kind == "hub" else json.dumps(dict(self.sample or {}), sort_keys=True)
        )

    @property
    def folder(self) -> str | None:
        """The folder of your files, or the cached one of generated files; None for the Hub."""
        return {"path": self.path, "hub": None}[self.kind] if self.kind != "sample" else str(self.sample_folder)

    def files(self, split: str) -> list[str]:
        """The files of a split, downloaded or generated if need be.

        Raises:
            InputError: there are none, or the Hub is out of reach.
        """
        if self.kind == "hub":
            settings = dict(self.hub or {})
            return hub.download(settings["repo"], settings["revision"], settings[split])
        named = (self.train_file, self.val_file) if self.kind == "path" else (None, None)
        return self.layout(self.folder, *named, (split,))[split]

    def limit(self, split: str) -> int | None:
        """How many examples of a split count; None: all."""
        return self.limits[split]

    def expected(self, split: str) -> int | None:
        """How many examples a split must have, as far as the configuration says it."""
        count = (self.sample or {}).get(split) if self.kind == "sample" else None
        return None if count is None else min(int(count), self.limits[split] or int(count))

    @property
    def fingerprints(self) -> dict[str, str]:
        """By split."""
        return {split: self.fingerprint(split) for split in SPLITS}

    def fingerprint(self, split: str) -> str:
        """Of a split's content: of your files, `repo@revision:file`, or of the generator and its settings; with the limit."""
        if self.kind == "path":
            base = self._content(split)
        elif self.kind == "sample":
            base = f"{self.generator}-{self.sample_folder.name}:{split}"
        else:
            settings = self.hub or {}
            base = f"{settings['repo']}@{settings['revision']}:{settings[split]}"
        limit = self.limits[split]
        parts = [base, self.variant, "" if limit is None else f"{self.selection}-{limit}"]
        return ":".join(part for part in parts if part)

    def _content(self, split: str) -> str:
        known = self._contents
        if split not in known:
            known[split] = (
                fingerprint.hash_files(self.files(split), self.root, self.verify)
                if self.content is None
                else self.content(split)
            )
        return known[split]

    @cached_property
    def _contents(self) -> dict[str, str]:
        return {}

    @cached_property
    def sample_folder(self) -> Path:
        """The cached folder of generated files, generated if need be.

        Raises:
            InputError: a setting that the generator does not have.
        """
        generator = importlib.import_module(f"datamodules.samples.{self.generator}")
        settings = dict(self.sample or {})
        known = list(inspect.signature(generator.write).parameters)[1:]
        if unknown := sorted(set(settings) - set(known)):
            raise InputError(f"data.sample has no key {unknown[0]}; it has {', '.join(known)}")
        # The generator's text is part of the key: another generator, other data.
        text = fingerprint.hash_files([str(generator.__file__)], self.root, "full")
        key = {**settings, "generator": text}
        return cache.entry(self.root, self.generator, key, lambda folder: generator.write(folder, **settings))
