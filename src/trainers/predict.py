"""Predictions of a saved model for new inputs, as JSON lines: what its validation would say of them."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import torch

from config import tasks
from config.errors import InputError
from trainers import saved_model
from trainers.saved_model import SavedModel


def predict(
    name: str,
    files: list[str],
    batch_size: int,
    stdin: TextIO,
    stdout: TextIO,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Writes a JSON line for each input.

    Args:
        name: a run's folder or a model folder.
        files: inputs, as the task reads them; none reads standard input.
        batch_size: inputs in a forward pass.
        stdin: standard input.
        stdout: where results go.
        options: of the command line that only some tasks take, such as `no_answer_threshold`.

    Raises:
        InputError: the model or an input cannot be read (the message names file and line), or an option that the task has
            no use for.
    """
    from trainers import cpu

    model = saved_model.open_model(name)
    function = tasks.load_member(model.task, "predict", "python -m trainers predict")
    known = getattr(model.module, "PREDICT_OPTIONS", ())
    given = {key: value for key, value in (options or {}).items() if value is not None}
    if unknown := sorted(set(given) - set(known)):
        raise InputError(f"--{unknown[0].replace('_', '-')} is not for a model of {model.task}")
    cpu.tune_cpu()
    with torch.inference_mode():
        for row in function(model, files, stdin, batch_size, **given):
            print(json.dumps(row, ensure_ascii=False), file=stdout, flush=True)


def default_device() -> torch.device:
    """Where predictions are made: the GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def prepare_network(network: Any, where: torch.device) -> Any:
    """A network in eval mode on its device, with the attention that validation has on CPUs."""
    from trainers import fast_dropout

    network = network.to(where).eval()
    if where.type == "cpu":
        fast_dropout.enable(network)
    return network


def autocast(model: SavedModel, where: torch.device) -> contextlib.AbstractContextManager[Any]:
    """The precision that the model was evaluated in, as this machine has it."""
    from trainers import hardware

    precision = str(hardware.resolve_precision(model.precision, "auto"))
    types = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    if precision not in types:
        return contextlib.nullcontext()
    return torch.autocast(where.type, types[precision])


def chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of at most `size` items."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def read_json_lines(stream: Iterable[str], name: str, keys: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """The objects of JSON lines; `id` is the line's number where there is none.

    Args:
        stream: lines.
        name: of the file, for messages.
        keys: that must be there, as text.

    Raises:
        InputError: a line that is not such an object.
    """
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except ValueError as error:
            raise InputError(f"{name}, line {number}: not JSON ({error})") from None
        if not isinstance(fields, dict) or not all(isinstance(fields.get(key), str) for key in keys):
            wanted = " and ".join(f'"{key}"' for key in keys)
            raise InputError(f"{name}, line {number}: must be an object with the text{'s' * (len(keys) > 1)} {wanted}")
        yield {**fields, "id": str(fields.get("id", number))}


def input_path(name: str) -> Path:
    """The path of an input file.

    Raises:
        InputError: there is none.
    """
    path = Path(name)
    if not path.is_file():
        raise InputError(f"{name}: no such file")
    return path
