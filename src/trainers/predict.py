"""Predictions of a saved model for new inputs, as JSON lines or a file, and what the tasks' predictors share."""

import contextlib
import inspect
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from numpy.typing import NDArray

from config import tasks
from config.errors import InputError
from config.parsing import parse_json
from datamodules.text.reading import limited_lines, type_name
from trainers import bfloat16, encoders, hardware, prediction_output, saved_model
from trainers.saved_model import SavedModel

BATCH_SIZE = 32  # inputs in a forward pass, unless another number is given
CHUNK_BATCHES = 32  # batches of texts that are read together and sorted by length


def predict(
    name: str,
    files: list[str],
    batch_size: int,
    stdin: TextIO,
    stdout: TextIO,
    options: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
    output: Path | None = None,
) -> None:
    """Write a row for each input, to standard output or to a file.

    Args:
        name: a run folder or a model folder.
        files: inputs, in the task's formats; empty to read standard input.
        batch_size: inputs in a forward pass.
        stdin: standard input.
        stdout: standard output.
        options: options of some tasks only, such as `no_answer_threshold`; None values are ignored.
        trust_remote_code: whether code that the folder contains or names may be executed.
        output: file for the rows, which `prediction_formats.check_output` has checked; None for JSON lines on `stdout`.

    Raises:
        InputError: the model or an input cannot be read (the message names file and line), the task has no such option,
            an output is not finite, or `output` was begun by another command.
    """
    model = saved_model.open_model(name, trust_remote_code)
    task_predict = tasks.load_member(model.task, "predict", "python -m trainers predict")
    task_options = getattr(model.module, "PREDICT_OPTIONS", ())
    kwargs = {key: value for key, value in (options or {}).items() if value is not None}
    if unknown := sorted(set(kwargs) - set(task_options)):
        raise InputError(f"--{unknown[0].replace('_', '-')} is not an option for models of {model.task}")
    hardware.tune_cpu()

    def rows(offset: int) -> Iterator[tuple[str, str]]:
        # A task outside isotrain may have no offset: it predicts all inputs again.
        has_offset = "offset" in inspect.signature(task_predict).parameters
        arguments = kwargs | ({"offset": offset} if has_offset else {})
        for row in task_predict(model, files, stdin, batch_size, **arguments):
            yield str(row.get("id")), _json_line(name, row)

    with torch.inference_mode():
        if output is not None:
            header = prediction_output.make_header(model, files, {"batch_size": batch_size, **kwargs})
            prediction_output.write(output, header, rows, batch_size)
            return
        for _, line in rows(0):
            print(line, file=stdout, flush=True)


def _json_line(name: str, row: Mapping[str, Any]) -> str:
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False)
    except ValueError as error:  # JSON has no NaN
        if "JSON compliant" not in str(error):
            raise
        raise InputError(
            f"run={name}: the output for {row.get('id')} is not finite: the weights are damaged, or of a training that "
            "diverged"
        ) from None


def default_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def prepare_network(network: Any, device: torch.device, precision: str = "32-true") -> Any:
    """Move a network to a device, in eval mode, with the attention that validation uses there.

    Args:
        network: the network.
        device: the device.
        precision: of its evaluation; with "bf16-true" the network itself is converted, for others see `autocast`.
    """
    network = network.to(device).eval()
    if precision == bfloat16.PRECISION:
        bfloat16.convert(network)
    encoders.choose_attention(network, device)
    return network


def autocast(model: SavedModel, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return a context with the precision of the model's evaluation, as far as this machine supports it."""
    precision = str(hardware.resolve_precision(model.precision, "auto"))
    types = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    if precision not in types:
        return contextlib.nullcontext()
    return torch.autocast(device.type, types[precision])


def chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yield lists of at most `size` items."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def chunks_after(items: Iterable[Any], size: int, offset: int) -> Iterator[tuple[list[Any], bool]]:
    """Yield lists of at most `size` items, and whether one of them comes after the first `offset`.

    A list is always of the same items, because what is computed together may differ in the last digits from what is not.
    """
    end = 0
    for chunk in chunks(items, size):
        end += len(chunk)
        yield chunk, end > offset


def length_batches(
    inputs: Any, batch_size: int, device: torch.device
) -> Iterator[tuple[NDArray[np.int64], dict[str, torch.Tensor]]]:
    """Yield batches of similar length, the longest first.

    Args:
        inputs: N encoded texts or windows: `lengths` [N] and `batch(indices)`, a mapping of arrays.
        batch_size: inputs in a batch.
        device: device of the tensors.

    Yields:
        Indices [B], and the batch.
    """
    order = np.argsort(-np.asarray(inputs.lengths, np.int64), kind="stable")
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        arrays = inputs.batch(indices.tolist())
        yield indices, {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}


def read_json_lines(stream: TextIO, name: str, keys: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Yield the objects of JSON lines. `id` becomes text, and is the number of the line if it is missing or null.

    Args:
        stream: the lines.
        name: name of the file, for messages.
        keys: required keys, whose values are text.

    Raises:
        InputError: a line is not such an object.
    """
    for number, line in enumerate(limited_lines(stream, name), 1):
        if not line.strip():
            continue
        try:
            fields = parse_json(line)
        except ValueError as error:
            raise InputError(f"{name}, line {number}: not JSON ({error})") from None
        if not isinstance(fields, dict) or not all(isinstance(fields.get(key), str) for key in keys):
            required = " and ".join(f'"{key}"' for key in keys)
            raise InputError(
                f"{name}, line {number}: must be an object with the text{'s' * (len(keys) > 1)} {required}"
            )
        identity = number if fields.get("id") is None else fields["id"]
        if not isinstance(identity, str | int) or isinstance(identity, bool):
            raise InputError(f'{name}, line {number}: "id" must be text or a whole number, not {type_name(identity)}')
        yield {**fields, "id": str(identity)}


def input_path(name: str) -> Path:
    """Return the path of an input file.

    Raises:
        InputError: there is no such file.
    """
    path = Path(name)
    if not path.is_file():
        raise InputError(f"{name}: no such file")
    return path
