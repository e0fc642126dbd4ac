"""docs/reference.md: that it is complete, true and up to date."""

import re
import shutil
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf
from tests.conftest import Run

from config import reference
from config.compose import compose
from config.tasks import CONF

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference.md"
GROUPS = [group for group in reference.SECTIONS if group not in ("experiment", "task")]


def test_it_is_up_to_date(run: Run) -> None:
    done = run("-m", "config.reference")
    assert done.returncode == 0, done.stderr
    assert done.stdout == PAGE.read_text(encoding="utf-8"), "python -m config.reference > docs/reference.md"


@pytest.mark.parametrize("group", GROUPS)
def test_every_key_has_a_comment(group: str) -> None:
    for choices in reference.tables(reference.read_group(group)).values():
        keys = {row.key for choice in choices for row in choice.settings}
        missing = sorted(key for key in keys if not reference.effect(key, choices))
        assert not missing, f"a comment behind {', '.join(missing)} says what it does, in conf/{group}"


def leaves(node: object, path: str = "") -> list[str]:
    if isinstance(node, dict) and node:
        return [key for name, child in node.items() for key in leaves(child, f"{path}.{name}".lstrip("."))]
    return [path]


def test_every_key_is_there() -> None:
    """Of the default run, of every choice, and of the pipeline; classes and Hydra's own keys excepted."""
    rows = set(re.findall(r"^\| `([\w.]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    keys = {key for key in leaves(OmegaConf.to_container(compose([]))) if not key.startswith("task.")}
    keys |= set(leaves({"hydra": {"sweeper": yaml.safe_load((CONF / "hydra/sweeper/katib.yaml").read_text())}}))
    for group in ("model", "data", "optim", "trainer", "logger", "quality", "explain"):
        for path in (CONF / group).glob("*.yaml"):
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
            keys |= {key for key in leaves({group: values}) if path.name != "none.yaml"}
    keys |= set(leaves(yaml.safe_load((CONF / "pipeline.yaml").read_text(encoding="utf-8"))))
    unknown = {key for key in keys if not any(key == row or key.startswith(f"{row}.") for row in rows)}
    assert {key for key in unknown if not re.search(r"(_target_|\.defaults)$|^experiment$", key)} == set()


def test_a_table_has_type_default_and_effect(tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    shutil.rmtree(conf / "optim")
    (conf / "optim").mkdir()
    (conf / "optim" / "a.yaml").write_text('# python train.py   first\nlr: 1e-3   # "a # b" | <c>\nmy: {a: "#1"}\n')
    (conf / "optim" / "b.yaml").write_text("lr: 0.5\nmy: {a: 2}  # d\nnested:  # e\n  schedule: [x,\n    y]  # f\n")
    text = reference.format_reference(conf)
    section = text[text.index("## Optimiser") : text.index("## Trainer")]
    assert section.splitlines()[4:] == [
        "| choice | |",
        "|---|---|",
        "| `a` | `python train.py` first |",
        "| `b` |  |",
        "",
        "| key | default | values | effect |",
        "|---|---|---|---|",
        '| `optim.lr` | `1e-3` (a); `0.5` (b) | a number, above 0 and at most 100 or null | "a # b" \\| &lt;c> |',
        '| `optim.my` | `{a: "#1"}` (a); `{a: 2}` (b) | a mapping | d |',
        "| `optim.nested` |  | a mapping | e |",
        "| `optim.nested.schedule` | `[x, y]` (b) | a list |  |",
        "",
    ]
