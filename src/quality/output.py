"""Where a command's report goes."""

import time
from datetime import datetime
from pathlib import Path


def report_folder(folder: str | None, name: str) -> Path:
    """The folder that was named, or a new one: outputs/<day>/<time>/<name>."""
    if folder:
        return Path(folder)
    while True:
        dated = Path(f"outputs/{datetime.now():%Y-%m-%d/%H-%M-%S}/{name}")
        try:
            dated.mkdir(parents=True)
        except FileExistsError:  # another one began in this second
            time.sleep(0.1)
        else:
            return dated
