"""The build backend: setuptools', for editable installs only, because isotrain runs from its checkout."""

from typing import Any, NoReturn

from setuptools.build_meta import build_editable, get_requires_for_build_editable, prepare_metadata_for_build_editable

__all__ = ["build_editable", "get_requires_for_build_editable", "prepare_metadata_for_build_editable"]


def _refuse(*args: Any, **kwargs: Any) -> NoReturn:
    """End the command: a wheel or an sdist would lack train.py and conf/, and install packages under generic names."""
    raise SystemExit(
        "isotrain is not a library: it runs from its checkout. There, `make train` or `pip install -e '.[quality]'` sets it up."
    )


get_requires_for_build_wheel = prepare_metadata_for_build_wheel = build_wheel = _refuse
get_requires_for_build_sdist = build_sdist = _refuse
