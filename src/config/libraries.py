"""What installed packages read from the environment when they are imported, and whose warnings are shown."""

import os
import sys
import warnings
from typing import TextIO

# Read when libraries are imported: tqdm, those of Hugging Face (transformers reads the Hub's) and MLflow. Our own bars pass
# `disable` themselves.
_VARIABLES = {
    "TQDM_DISABLE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
}


def configure_libraries() -> None:
    """Configure installed packages by environment variables. A command calls this before it imports them.

    Progress bars and warnings are off. A variable that is already set is kept. With ISOTRAIN_DEBUG=1 the warnings are shown.
    """
    for variable, value in _VARIABLES.items():
        os.environ.setdefault(variable, value)
    if os.environ.get("ISOTRAIN_DEBUG", "0") in ("", "0"):
        warnings.showwarning = _show_own_warning


def _show_own_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a warning as Python does, unless it is about a line of an installed package, which no user can change."""
    if not filename.startswith((sys.prefix, sys.base_prefix, "<")):
        print(warnings.formatwarning(message, category, filename, lineno, line), end="", file=file or sys.stderr)
