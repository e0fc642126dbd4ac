"""Source of a data set: local or remote files, files on the Hugging Face Hub, or generated ones."""

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
    """Source of both splits of a data set, with a limit on their examples.

    The first of these settings counts: files (`path`, `train_file`, `val_file`), a sample, the Hub.

    Attributes:
        path: folder with both splits, local or an fsspec URL.
        train_file: the training file, relative to `path` or by its own path.
        val_file: the validation file, likewise.
        hub: `repo`, `revision`, and the files of `train` and `val` in it.
        sample: settings of the generator.
        generator: module of `datamodules.samples` with `write(folder, **settings)` and `FINGERPRINT`.
        limits: maximum number of examples by split; None: all.
        selection: how a limit selects: "first", or "balanced" over classes. Part of fingerprints.
        layout: finds the files of a split in a folder.
        root: folder of the cache.
        verify: "full" reads local files again even if they look unchanged.
        content: computes the fingerprint of a split of files; None: from the files' names and contents.
        variant: anything else the examples depend on, as part of fingerprints; "" for nothing.
        choice: of conf/data, for a message: one that needs no files; "": the generator's name.
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
            InputError: none is set.
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
    def origin(self) -> str:
        """Where the data comes from, independent of its present content: the same for all versions of a data set."""
        if self.kind == "path":
            names = (self.path, self.train_file, self.val_file)
            return json.dumps([name and (name if "://" in name else str(Path(name).absolute())) for name in names])
        if self.kind == "sample":
            return json.dumps(dict(self.sample or {}), sort_keys=True)
        return str((self.hub or {})["repo"])

    @property
    def folder(self) -> str | None:
        """The folder of the files, or the cached one of generated files; None for the Hub."""
        if self.kind == "sample":
            return str(self.sample_folder)
        return self.path if self.kind == "path" else None

    def files(self, split: str) -> list[str]:
        """Return the files of a split, downloaded or generated if necessary.

        Raises:
            InputError: there are none, or the Hub cannot be reached.
        """
        if self.kind == "hub":
            settings = dict(self.hub or {})
            return hub.download(settings["repo"], settings["revision"], settings[split])
        names = (self.train_file, self.val_file) if self.kind == "path" else (None, None)
        return self.layout(self.folder, *names, (split,))[split]

    def expected(self, split: str) -> int | None:
        """Return the number of examples that the configuration requires of a split, if it does."""
        count = (self.sample or {}).get(split) if self.kind == "sample" else None
        return None if count is None else min(int(count), self.limits[split] or int(count))

    @property
    def fingerprints(self) -> dict[str, str]:
        """Fingerprint of each split."""
        return {split: self.fingerprint(split) for split in SPLITS}

    def fingerprint(self, split: str) -> str:
        """Return the fingerprint of a split's content, variant and limit.

        The content of files is a hash, that of Hub data `repo@revision:file`, that of generated data a hash of the
        generator and its settings.
        """
        if self.kind == "path":
            content = self._file_content(split)
        elif self.kind == "sample":
            content = f"{self.generator}-{cache.entry_name(self._sample_key)}:{split}"
        else:
            settings = self.hub or {}
            content = f"{settings['repo']}@{settings['revision']}:{settings[split]}"
        limit = self.limits[split]
        parts = [content, self.variant, "" if limit is None else f"{self.selection}-{limit}"]
        return ":".join(part for part in parts if part)

    def _file_content(self, split: str) -> str:
        if split not in self._file_contents:
            self._file_contents[split] = (
                fingerprint.hash_files(self.files(split), self.root, self.verify)
                if self.content is None
                else self.content(split)
            )
        return self._file_contents[split]

    @cached_property
    def _file_contents(self) -> dict[str, str]:
        return {}

    @cached_property
    def sample_folder(self) -> Path:
        """The cached folder of generated files, generated if necessary.

        Raises:
            InputError: a setting that the generator does not have.
        """

        def build(folder: Path) -> None:
            self._sample_module.write(folder, **dict(self.sample or {}))

        return cache.entry(self.root, self.generator, self._sample_key, build, self.verify)

    @property
    def _sample_module(self) -> Any:
        return importlib.import_module(f"datamodules.samples.{self.generator}")

    @property
    def _sample_key(self) -> dict[str, Any]:
        settings = dict(self.sample or {})
        names = list(inspect.signature(self._sample_module.write).parameters)[1:]
        if unknown := sorted(set(settings) - set(names)):
            raise InputError(f"data.sample has no key {unknown[0]}; valid keys: {', '.join(names)}")
        return {**settings, "generator": self._sample_module.FINGERPRINT}
