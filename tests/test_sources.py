"""Where data comes from: what identifies it stays the same from version to version, so that old caches and runs stay of use."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from config.errors import InputError
from datamodules import factory
from datamodules.sources import files
from datamodules.sources.locations import Names, resolve_files
from datamodules.sources.source import Source
from datamodules.text.records import SUFFIXES


def composed(*overrides: str) -> Any:
    return factory.build(factory.compose_config(overrides).data)


def test_fingerprints_and_cache_keys_of_generated_data_are_those_of_the_first_release(tmp_path: Path) -> None:
    """A change here makes every cache, and every comparison with an older run, start anew: only for another generator."""
    cache = f"data.cache_dir={tmp_path}"
    sizes = ("data.sample.train=200", "data.sample.val=50", "data.max_train=150", "model.vocab_size=300")
    questions = composed("data=squad_sample", "model=bert_tiny", *sizes, cache)
    assert questions.fingerprints == {
        "train": "squad_sample-f2ed11547210f1443eba096b:train:first-150",
        "val": "squad_sample-f2ed11547210f1443eba096b:val",
    }
    assert questions.origin == '{"seed": 0, "train": 200, "unanswerable": 0.0, "val": 50}'
    assert [questions.expected(split) for split in ("train", "val")] == [150, 50]
    assert [questions.folder(split).name for split in ("train", "val")] == [
        "051843706cd2e17f521c788f",
        "abb3298738930729cfcd0bf3",
    ]
    sizes = ("data.sample.train=60", "data.sample.val=24", "data.max_val=12")
    images = composed("data=shapes", "model=resnet18", *sizes, cache)
    assert images.fingerprints == {
        "train": "shapes-f29047f4ab72d115f952857e:train",
        "val": "shapes-f29047f4ab72d115f952857e:val:balanced-12",
    }
    assert [images.folder(split).name for split in ("train", "val")] == [
        "1474c0dadc56f16925c31999",  # images' third policy: as timm's transforms, JPEGs decoded whole
        "a8dd023f68b84f03fa99a58a",
    ]


@pytest.mark.parametrize(
    ("data", "train", "val"),
    [
        (
            "squad",
            "rajpurkar/squad@7b6d24c440a36b6815f21b70d25016731768db1f:plain_text/train-00000-of-00001.parquet",
            "rajpurkar/squad@7b6d24c440a36b6815f21b70d25016731768db1f:plain_text/validation-00000-of-00001.parquet",
        ),
        (
            "tiny_imagenet",
            "zh-plus/tiny-imagenet@5a77092c28e51558c5586e9c5eb71a7e17a5e43f:"
            "data/train-00000-of-00001-1359597a978bc4fa.parquet",
            "zh-plus/tiny-imagenet@5a77092c28e51558c5586e9c5eb71a7e17a5e43f:"
            "data/valid-00000-of-00001-70d52db3c749a935.parquet",
        ),
    ],
)
def test_fingerprints_of_the_hub_are_repository_revision_and_file(data: str, train: str, val: str) -> None:
    made = composed(f"data={data}", "model=majority")
    assert made.fingerprints == {"train": train, "val": val}
    assert made.origin == train.partition("@")[0]


def source(tmp_path: Path, **settings: Any) -> Source:
    given: dict[str, Any] = {
        "names": Names(),
        "hub": None,
        "sample": None,
        "generator": "topics",
        "limits": {"train": None, "val": 3},
        "selection": "balanced",
        "layout": lambda names, part, undivided: resolve_files(names, part, suffixes=SUFFIXES, undivided=undivided),
        "root": tmp_path / "cache",
        **settings,
    }
    return Source(**given)


def test_files_come_before_a_sample_and_a_sample_before_the_hub(tmp_path: Path) -> None:
    hub = {"repo": "o/n", "revision": "r", "train": "a", "val": "b"}
    sample = {"seed": 0, "train": 5, "val": 4}
    (tmp_path / "train.csv").write_text("text,label\na,b\n")
    every = source(tmp_path, names=Names(str(tmp_path)), sample=sample, hub=hub)
    assert (every.kind, every.folder, every.files("train")) == ("path", str(tmp_path), [str(tmp_path / "train.csv")])
    assert every.origin == json.dumps([str(tmp_path), None, None])
    assert every.expected("train") is None
    made = source(tmp_path, sample=sample, hub=hub)
    assert (made.kind, Path(made.files("val")[0]).name) == ("sample", "val.jsonl")
    assert [made.expected(split) for split in ("train", "val")] == [5, 3]
    remote = source(tmp_path, hub=hub)
    assert (remote.kind, remote.folder, remote.origin, remote.expected("val")) == ("hub", None, "o/n", None)
    assert remote.fingerprints == {"train": "o/n@r:a", "val": "o/n@r:b:balanced-3"}
    assert source(tmp_path, hub=hub, variant="v").fingerprint("val") == "o/n@r:b:v:balanced-3"
    with pytest.raises(InputError, match=r"^no data: give data\.path=<folder>, .* or choose data=topics$"):
        source(tmp_path).fingerprint("train")


def test_the_content_of_local_files_is_read_once(tmp_path: Path) -> None:
    calls = []

    def content(split: str) -> str:
        calls.append(split)
        return f"content of {split}"

    made = source(tmp_path, names=Names(str(tmp_path)), content=content)
    assert [made.fingerprint("val") for _ in range(3)] == ["content of val:balanced-3"] * 3
    assert calls == ["val"]


@pytest.mark.parametrize("url", ["https://host:x/a.json", "https://[::1/a.json", "s3://bucket:y/a.json"])
def test_an_invalid_url_is_named(url: str) -> None:
    with pytest.raises(InputError, match=rf"cannot open {re.escape(url)}: "):
        files.file_system(url)
