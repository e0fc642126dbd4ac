"""Source of a data set: local or remote files, files on the Hugging Face Hub, or generated ones."""

import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from config.errors import InputError
from datamodules.sources import hub
from datamodules.sources.locations import Names
from datamodules.sources.splitting import Splitting
from datamodules.storage import cache, fingerprint

SPLITS = ("train", "val")

# Arguments: the named files, the split, and whether the training files are all that there is; returns the split's files.
Layout = Callable[[Names, str, bool], list[str]]


@dataclass(frozen=True)
class Source:
    """Source of both splits of a data set, with a limit on their examples.

    The first of these settings counts: files (`names`), a sample, the Hub.

    Attributes:
        names: of files.
        hub: `repo`, `revision`, and the files of `train`, `val` and maybe `test` in it.
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
        splitting: parts that are taken from the training files.
        evaluated: the part that counts as "val": another one is evaluated in its place.
    """

    names: Names
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
    splitting: Splitting = field(default_factory=Splitting)
    evaluated: Literal["val", "test"] = "val"

    def part(self, split: str) -> str:
        """Return the part that a split is: "test" for "val" if that is evaluated."""
        return self.evaluated if split == "val" else split

    @property
    def kind(self) -> Literal["path", "sample", "hub"]:
        """Which of the settings counts.

        Raises:
            InputError: none is set.
        """
        if self.names:
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
            names = (self.names.path, self.names.train, self.names.val)
            return json.dumps([name and (name if "://" in name else str(Path(name).absolute())) for name in names])
        if self.kind == "sample":
            return json.dumps(dict(self.sample or {}), sort_keys=True)
        return str((self.hub or {})["repo"])

    @property
    def folder(self) -> str | None:
        """The folder of the files, or the cached one of generated files; None for the Hub."""
        if self.kind == "sample":
            return str(self.sample_folder)
        return self.names.path if self.kind == "path" else None

    def files(self, split: str) -> list[str]:
        """Return the files of a split, downloaded or generated if necessary.

        Raises:
            InputError: there are none, or the Hub cannot be reached.
        """
        part = self.part(split)
        taken = self.splitting.takes(part)
        if self.kind == "path" and taken and part != "train":
            self._check_single(part)
        name = "train" if taken else part
        if self._is_named_test(part):
            return self.layout(self.names, "test", False)
        if self.kind == "hub":
            settings = dict(self.hub or {})
            if settings.get(name) is None:
                raise InputError(f"data.hub has no {name} files; give data.{name}_file, or data.test_split=0.1")
            return hub.download(settings["repo"], settings["revision"], settings[name])
        names = self.names if self.kind == "path" else Names(self.folder)
        return self.layout(names, name, self.splitting.val is not None)

    def _is_named_test(self, part: str) -> bool:
        """Whether a part is the test file that the configuration names, whatever the source of the others."""
        return part == "test" and self.names.test is not None and not self.splitting.takes(part)

    def _check_single(self, part: str) -> None:
        """Refuse a part that is to be taken from the training files and also has a file of its own."""
        key = {"val": "split", "test": "test_split"}[part]
        share = f"data.{key}={getattr(self.splitting, part)}"
        if (name := getattr(self.names, part)) is not None:
            raise InputError(f"data.{part}_file={name} and {share} both name the {part} part: set only one of them")
        if self.names.path is not None and self.names.train is None:
            try:
                candidates = self.layout(self.names, part, False)
            except InputError:  # no file, as it should be
                return
            raise InputError(
                f"{candidates[0]} could be the {part} part, and {share} takes one from the training files: unset it, or name the "
                "file to split with data.train_file"
            )

    def expected(self, split: str) -> int | None:
        """Return the number of examples that the configuration requires of a split, if it does."""
        count = (self.sample or {}).get(split) if self.kind == "sample" and not self.splitting else None
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
        part = self.part(split)
        limit = self.limits.get(part)
        parts = [self.content_fingerprint(split), self.variant, self.splitting.variant(part)]
        parts.append("" if limit is None else f"{self.selection}-{limit}")
        return ":".join(text for text in parts if text)

    def content_fingerprint(self, split: str) -> str:
        """Return the fingerprint of all that the files of a split contain."""
        part = self.part(split)
        name = "train" if self.splitting.takes(part) else part
        if self.kind == "path" or self._is_named_test(part):
            return self._file_content(split)
        if self.kind == "sample":
            return f"{self.generator}-{cache.entry_name(self._sample_key)}:{name}"
        settings = self.hub or {}
        return f"{settings['repo']}@{settings['revision']}:{settings.get(name)}"

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
