"""A real browser for pages: Debian's Chromium, headless. Tests skip, loudly, where there is none."""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import warnings
from html import unescape
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OUTSIDE = re.compile(r"(?:src|href)\s*=\s*['\"]?(?:https?:)?//|url\(\s*['\"]?https?:|@import|fetch\(|XMLHttpRequest")


def asked(page: Path, expression: str, width: int = 1100, dark: bool = False) -> Any:
    """What a JavaScript expression (of JSON values) is on a page, once it stands.

    Args:
        page: an HTML file.
        expression: may have several statements, the last a `return`.
        width: of the window, pixels; Chromium has 500 at least.
        dark: whether the reader prefers dark pages.
    """
    if CHROMIUM is None:
        warnings.warn("no chromium is there: tests of pages are skipped", stacklevel=2)
        pytest.skip("no chromium")
    copy = page.with_name(f".asked-{page.name}")
    script = f"document.body.dataset.found = JSON.stringify((() => {{ {expression} }})() ?? null)"
    # The page's policy stays, and allows the probe, too.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = page.read_text(encoding="utf-8").replace("script-src '", f"script-src 'sha256-{digest}' '", 1)
    copy.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    try:
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900", "--dump-dom"]
        scheme = [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
        done = subprocess.run(
            [*command, *scheme, copy.resolve().as_uri()],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
            env={**os.environ, "HOME": str(page.parent)},
        )
    finally:
        copy.unlink()
    found = re.search(r'<body[^>]* data-found="([^"]*)"', done.stdout)
    assert found is not None, done.stdout[:2000]
    return json.loads(unescape(found[1]))


def needs_nothing(page: Path) -> bool:
    """Whether a page asks nothing of anybody else."""
    return OUTSIDE.search(page.read_text(encoding="utf-8")) is None
