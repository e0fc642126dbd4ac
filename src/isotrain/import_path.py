"""The packages of isotrain have short names (config, runs, …), which files of the working directory may have, too."""

import sys
import warnings
from pathlib import Path

_SOURCES = Path(__file__).resolve().parents[1]


def _come_first() -> None:
    """Let isotrain's packages come first on sys.path, and say so if that hides files.

    Raises:
        ImportError: A module with such a name is imported already, so that isotrain cannot import its own.
    """
    names = sorted(path.parent.name for path in _SOURCES.glob("*/__init__.py") if path.parent.name != "isotrain")
    for name in names:
        module = sys.modules.get(name)
        file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", [])), None)
        if module is not None and file is not None and not Path(file).resolve().is_relative_to(_SOURCES):
            raise ImportError(
                f"isotrain has a package {name}, but {file} is imported by that name: rename it, or import it in another process"
            )
    if sys.path[:1] == [str(_SOURCES)]:
        return
    before = sys.path[: sys.path.index(str(_SOURCES))] if str(_SOURCES) in sys.path else sys.path
    folders = [Path(entry or ".").absolute() for entry in before]
    paths = [folder / file for folder in folders for name in names for file in (f"{name}.py", f"{name}/__init__.py")]
    sys.path.insert(0, str(_SOURCES))
    if hidden := [path for path in paths if path.is_file()]:
        warnings.warn(
            f"{', '.join(map(str, hidden))}: isotrain has packages of these names, which `import` finds first from now on; "
            "rename the files to import them beside isotrain",
            stacklevel=2,
        )


_come_first()
