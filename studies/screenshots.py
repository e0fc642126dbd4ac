"""The pictures in docs/: `python -m studies.screenshots [NAME ...]` makes the runs and writes docs/NAME.png. Needs Chromium.

What is made is kept in outputs/screenshots, so that a picture is taken again without a new run.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from benchmarks import planted
from benchmarks.explain_gate import IMAGES
from benchmarks.measure import ROOT
from PIL import Image

from datamodules.samples import shapes

WORK = ROOT / "outputs" / "screenshots"


def report() -> None:
    """The report of a run."""
    run = WORK / "shapes"
    small = ("model.name=resnet10t", "model.stem=standard", "data.image_size=32")
    python("train.py", "model=resnet18", "data=shapes", *small, f"hydra.run.dir={run}")
    photograph(run / "report.html", "report", 1000, 1390)


def quality() -> None:
    """The report of a failed contract: one file is cut off, two images are in both splits."""
    data, verdict = WORK / "defects", WORK / "quality"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    shapes.write(data, seed=0, train=300, val=100)
    images = data / "train"
    torn = images / "arrow" / "images" / "arrow_20.JPEG"
    torn.write_bytes(torn.read_bytes()[:1500])
    for number in (3, 4):
        shutil.copy(images / f"bolt/images/bolt_{number}.JPEG", data / "val" / "images" / f"val_{12 * number + 1}.JPEG")
    python("-m", "quality", "data=shapes", f"data.path={data}", f"--folder={verdict}", code=4)
    photograph(verdict / "report.html", "quality", 860, 760)


def explain() -> None:
    """The report of a model that uses a marker in the corner of each image."""
    data, run = WORK / "marked", WORK / "shortcut"
    if not data.exists():
        planted.marked_shapes(data, train=1600, val=400, classes=4, size=32)
    settings = ("explain=enforce", "explain.examples=96", "explain.image_classification.grid=4")
    python("train.py", *IMAGES, f"data.path={data}", "quality=off", *settings, f"hydra.run.dir={run}", code=5)
    photograph(run / "explain" / "report.html", "explain", 1000, 1300)


def sample() -> None:
    """Twelve shapes, four images of each, as data=shapes generates them."""
    random, names = np.random.default_rng(0), sorted(shapes.SHAPES)
    rows = [np.hstack([framed(shapes.draw(name, random, 64, False)[0]) for name in names]) for _ in range(4)]
    write(Image.fromarray(np.vstack(rows)[:-2, :-2]), "shapes")


def framed(image: Image.Image) -> np.ndarray:
    """An image with a white margin on two sides."""
    return np.pad(np.asarray(image), ((0, 2), (0, 2), (0, 0)), constant_values=255)


def python(*words: str, code: int = 0) -> None:
    """Runs a command of ours that must end with an exit code."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    ended = subprocess.run([sys.executable, "-P", *words], cwd=ROOT, env=environment, check=False).returncode
    if ended != code:
        sys.exit(f"isotrain: exit code {ended}, not {code}: {' '.join(words)}")


def photograph(page: Path, name: str, width: int, height: int) -> None:
    """Writes the top of a page in a window of width x height pixels as docs/NAME.png."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        sys.exit("isotrain: install Chromium to take pictures of pages")
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, "page.png")
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--window-size={width},{height}",
        ]
        command = [browser, *options, f"--screenshot={picture}", page.resolve().as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=300, env={**os.environ, "HOME": folder})
        write(Image.open(picture).convert("RGB"), name)


def write(image: Image.Image, name: str) -> None:
    """Writes docs/NAME.png with 256 colours, which keeps it small."""
    path = ROOT / "docs" / f"{name}.png"
    image.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path} ({path.stat().st_size // 1000} kB)")


PICTURES: dict[str, Callable[[], None]] = {"report": report, "quality": quality, "explain": explain, "shapes": sample}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m studies.screenshots", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *PICTURES], metavar="NAME", help=", ".join(PICTURES))
    for chosen in parser.parse_args().names or PICTURES:
        PICTURES[chosen]()
