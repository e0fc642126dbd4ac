"""Provenance of a run: code, packages and machine. Unknown values are null."""

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from config.files import PROJECT
from config.process import available_cores, cpu_limit, memory_limit

LOCK_FILE = PROJECT / "requirements.lock"
# An image has no .git; its build sets this.
REVISION_VARIABLE = "ISOTRAIN_REVISION"


def git_state(project: Path = PROJECT) -> dict[str, Any]:
    """Return the state of the code.

    Returns:
        revision (40 hex digits or null), dirty (bool or null), untracked (names) and diff (text, relative to the revision).
    """
    unknown: dict[str, Any] = {
        "revision": os.environ.get(REVISION_VARIABLE) or None,
        "dirty": None,
        "untracked": [],
        "diff": "",
    }
    # A copy that is installed in an environment inside another repository is not a part of that repository.
    if _git(project, "rev-parse", "--git-dir") is None or _git(project, "check-ignore", "-q", __file__) is not None:
        return unknown
    status = _git(project, "status", "--porcelain", "--untracked-files=normal", "-z") or ""
    revision = (_git(project, "rev-parse", "--verify", "-q", "HEAD") or "").strip() or None
    untracked = [line[3:] for line in status.split("\0") if line.startswith("?? ")]
    diff = _git(project, "diff", "--no-ext-diff", "--no-color", "HEAD") if revision else ""
    return {"revision": revision, "dirty": bool(status), "untracked": untracked[:100], "diff": diff or ""}


def lock_hash(project: Path = PROJECT) -> str | None:
    """Return the SHA-256 of requirements.lock; None if there is none."""
    try:
        return hashlib.sha256((project / "requirements.lock").read_bytes()).hexdigest()
    except OSError:
        return None


def project_version(project: Path = PROJECT) -> str:
    """Return isotrain's version, from the checkout: the image has one, and no installed package isotrain."""
    return str(tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]["version"])


def package_versions(project: Path = PROJECT) -> dict[str, str]:
    """Return the versions of Python and of the direct dependencies that are installed."""
    try:
        declared = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
        extras = declared.get("optional-dependencies", {}).values()
        requirements = [*declared["dependencies"], *(name for extra in extras for name in extra)]
    except (OSError, ValueError, KeyError):
        try:
            requirements = importlib.metadata.requires("isotrain") or []
        except importlib.metadata.PackageNotFoundError:
            requirements = ["torch", "lightning", "transformers", "timm", "hydra-core"]
    versions = {"python": platform.python_version()}
    for name in sorted({match[0] for text in requirements if (match := re.match(r"[A-Za-z0-9._-]+", text))}):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def hardware_info() -> dict[str, Any]:
    """Return processor, usable cores, memory, and GPUs (if torch is imported already)."""
    import psutil

    return {
        "host": socket.gethostname(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": read_cpuinfo("model name") or platform.processor() or None,
        "cores": available_cores(),
        "cpu_limit": cpu_limit(),
        "memory_mib": int(min(psutil.virtual_memory().total, memory_limit())) // 2**20,
        "gpus": _gpus(),
    }


def environment_info() -> dict[str, Any]:
    """Return the Katib trial, the pipeline run and the number of processes, from environment variables."""
    pipeline = {
        key.removeprefix("KFP_").lower(): os.environ[key]
        for key in ("KFP_RUN_ID", "KFP_RUN_NAME", "KFP_POD_NAME", "KFP_POD_UID")
        if os.environ.get(key)
    }
    return {
        "trial": os.environ.get("KATIB_TRIAL_NAME") or None,
        "pipeline": pipeline or None,
        "world_size": int(os.environ.get("WORLD_SIZE") or 1),
    }


def _git(project: Path, *arguments: str) -> str | None:
    """Output of git; None if it fails, is not installed, or takes too long."""
    try:
        result = subprocess.run(
            ["git", "-C", str(project), *arguments],
            capture_output=True,
            timeout=20,
            check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.decode("utf-8", "replace") if result.returncode == 0 else None


def read_cpuinfo(key: str) -> str:
    """Return a field of Linux's /proc/cpuinfo, such as "model name"; "" if there is none."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    return ""


def _gpus() -> list[dict[str, Any]]:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    devices = (torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count()))
    return [{"name": device.name, "memory_mib": device.total_memory // 2**20} for device in devices]
