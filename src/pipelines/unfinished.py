"""Records of runs that were terminated, completed by the next run on the same volume."""

import time
from pathlib import Path

from config import files
from pipelines.interruption import is_locked
from pipelines.record import publish_run
from pipelines.report import write_report

QUIET = 3600.0  # seconds without a step, after which a run without a record of its end is taken for ended


def publish_unfinished(root: str, current: Path) -> list[str]:
    """Publish record and page of each run that ended without its exit handler: it was terminated, or its Workflow was deleted.

    Should such a run go on after all, its exit handler writes both again.

    Args:
        root: Folder of runs and records.
        current: Folder of the run that calls this.

    Returns:
        The names of the runs.
    """
    names = []
    for folder in sorted((Path(root) / "pipelines").iterdir()):
        steps = sorted((folder / "steps").glob("*.json"))
        if folder == current or not steps or any(is_locked(path) for path in steps):
            continue
        last = max(path.stat().st_mtime for path in steps)
        published = folder / "pipeline.json"
        if published.exists() and published.stat().st_mtime >= last:
            continue
        states = {str(files.read_json(path).get("state")) for path in steps}
        if not states & {"running", "interrupted"} and time.time() - last < QUIET:
            continue  # between two steps
        write_report(
            folder, publish_run(folder, "FAILED" if "failed" in states else "CANCELED", "ended without its last step")
        )
        names.append(folder.name)
    return names
