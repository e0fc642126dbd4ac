"""isotrain in Python: `import isotrain` (docs/python.md).

Ten functions with the checks, records and folders of the commands. What needs torch runs as the command, in a process of its own:
this one keeps its memory, random state and signal handlers, and importing isotrain loads none of the heavy libraries. Errors are
exceptions: `InputError` for what a command refuses with exit code 2.
"""

from isotrain import import_path as import_path  # lets our packages come before files of the working directory

# isort: split
from config.errors import (
    ContractError,
    DivergenceError,
    ExecutionError,
    ExplanationError,
    InputError,
    ResourceError,
    UnreachableError,
)
from isotrain.analysis import compare, compose, load, register, runs
from isotrain.commands import check_data, evaluate, explain, fit, predict
from isotrain.run import Run

__all__ = [
    "ContractError",
    "DivergenceError",
    "ExecutionError",
    "ExplanationError",
    "InputError",
    "ResourceError",
    "Run",
    "UnreachableError",
    "check_data",
    "compare",
    "compose",
    "evaluate",
    "explain",
    "fit",
    "load",
    "predict",
    "register",
    "runs",
]
