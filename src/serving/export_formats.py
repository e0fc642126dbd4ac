"""Model folders in other formats: ONNX, ONNX with 8-bit integers, and bfloat16 weights."""

import contextlib
import io
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from config import files
from config.errors import InputError, first_line
from runs import digests
from trainers import bfloat16, hardware, onnx_network, weights
from trainers.saved_model import SavedModel

FORMATS = {"onnx": "32-true", "onnx-int8": "32-true", "bf16": bfloat16.PRECISION}  # with the precision of predictions
CALIBRATION = 256  # training images
ONNX_FILES = (onnx_network.FILE, onnx_network.DATA)


class _CapturedError(Exception):
    """Ends a forward pass when its inputs are known."""


def copy_settings(model: SavedModel, folder: Path) -> None:
    """Copy all files of a model folder but its weights and isotrain.json."""
    folder.mkdir()
    for path in sorted(model.folder.iterdir()):
        is_weights = any(path.name.startswith(Path(name).stem) for name in (*weights.FILES, *ONNX_FILES))
        if path.is_file() and not is_weights and path.name != digests.SETTINGS:
            shutil.copyfile(path, folder / path.name)


def write_settings(model: SavedModel, folder: Path, precision: str, origin: Mapping[str, Any]) -> None:
    """Write isotrain.json of an exported model folder: the original's, with another precision, its origin and digests."""
    content = files.read_json(model.folder / digests.SETTINGS)
    content |= {"task": model.task, **model.settings, "measured": model.measurements, "precision": precision}
    files.write_json(
        folder / digests.SETTINGS, {**content, "export": dict(origin), digests.KEY: digests.folder_digests(folder)}
    )


def write_bfloat16(model: SavedModel, folder: Path) -> None:
    """Write the weights in bfloat16, as safetensors, with their names."""
    from safetensors.torch import save_file

    state = weights.read_folder(model.folder, f"run={model.folder}")
    # A copy of each: safetensors refuses tensors that share memory.
    converted = {
        name: tensor.to(torch.bfloat16 if tensor.is_floating_point() else tensor.dtype).clone().contiguous()
        for name, tensor in state.items()
    }
    save_file(converted, folder / weights.FILES[0], metadata={"format": "pt"})
    if "model_type" in model.config:  # transformers reads it without isotrain
        files.write_json(folder / "config.json", {**model.config, "dtype": "bfloat16"})


def write_onnx(network: Any, inputs: Mapping[str, Tensor], folder: Path) -> None:
    """Write a network's graph and weights; batch and length of the inputs are dynamic, sizes of images are not.

    Args:
        network: of torch, on the CPU, in eval mode and float32.
        inputs: of a forward pass with at least two examples: integers [B, L], or images [B, 3, H, W].
        folder: of the files.

    Raises:
        InputError: torch cannot export the network.
    """
    if getattr(getattr(network, "config", None), "_attn_implementation", "") not in ("", "eager", "sdpa"):
        network.set_attn_implementation("sdpa")  # not that of isotrain for training on CPUs
    dynamic = torch.export.Dim.DYNAMIC
    shapes = {
        name: {0: dynamic} if tensor.is_floating_point() else {0: dynamic, 1: dynamic}
        for name, tensor in inputs.items()
    }
    wrapper = _Outputs(network, list(inputs)).eval()
    with _quiet(), torch.inference_mode(False), torch.no_grad():
        try:
            outputs = wrapper(*inputs.values())
            names = ["logits"] if len(outputs) == 1 else ["start_logits", "end_logits"][: len(outputs)]
            program = torch.onnx.export(
                wrapper,
                tuple(inputs.values()),
                dynamo=True,
                input_names=list(inputs),
                output_names=names,
                dynamic_shapes=(tuple(shapes.values()),),
                verbose=False,
            )
            assert program is not None
            program.save(str(folder / onnx_network.FILE), external_data=True)
        except (MemoryError, OSError):
            raise
        except Exception as error:
            name = f"{type(network).__module__}.{type(network).__qualname__}"
            raise InputError(f"torch cannot export {name} to ONNX: {first_line(error)[:300]}; use --to bf16") from error


def quantize(folder: Path, calibration: Callable[[], Iterator[Mapping[str, Tensor]]]) -> str:
    """Replace the network of a folder by one with 8-bit integers.

    Weights of texts' networks are quantised by channel, and their activations in each forward pass. Networks with convolutions
    are quantised with ranges of activations that are measured on calibration data.

    Args:
        folder: of the files.
        calibration: returns inputs of forward passes on training data; called for networks with convolutions only.

    Returns:
        What was done, for the record.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    source = folder / "float32"
    source.mkdir()
    for name in ONNX_FILES:
        if (folder / name).exists():
            (folder / name).rename(source / name)
    path, target = source / onnx_network.FILE, folder / onnx_network.FILE
    operators = {node.op_type for node in onnx.load(str(path), load_external_data=False).graph.node}
    # Without VNNI, sums of two products of 8 bits overflow 16 bits.
    reduce_range = not hardware.cpu_flags() & {"avx512_vnni", "avx_vnni", "asimddp"}
    options: dict[str, Any] = {"per_channel": True, "reduce_range": reduce_range, "use_external_data_format": True}
    with _quiet():
        if "Conv" in operators:
            prepared = source / "prepared.onnx"
            quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True, save_as_external_data=True)
            batches = ({name: tensor.numpy() for name, tensor in inputs.items()} for inputs in calibration())
            quantization.quantize_static(
                str(prepared), str(target), _Reader(batches), quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8, **options,
            )  # fmt: skip
            method = f"static, with ranges of up to {CALIBRATION} training images"
        else:
            quantization.quantize_dynamic(str(path), str(target), weight_type=quantization.QuantType.QInt8, **options)
            method = "dynamic: weights by channel, activations in each forward pass"
    shutil.rmtree(source)
    return method + (", 7 bits, as this CPU has no VNNI" if reduce_range else "")


class _Reader:
    """What ONNX Runtime reads calibration data from."""

    def __init__(self, batches: Iterator[Mapping[str, Any]]) -> None:
        self._batches = batches

    def get_next(self) -> Mapping[str, Any] | None:
        return next(self._batches, None)


def capture_inputs(network: Any, forward: Callable[[], Any]) -> dict[str, Tensor]:
    """Return what a network gets in a forward pass, which is not carried out.

    Args:
        network: the network.
        forward: calls the network.

    Returns:
        Tensors on the CPU by argument; those of images as "images".

    Raises:
        InputError: the network was not called, or gets something else than tensors.
    """
    captured: dict[str, Any] = {}

    def capture(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        captured.update(kwargs, **({onnx_network.IMAGES: args[0]} if len(args) == 1 else {}))
        raise _CapturedError

    handle = network.register_forward_pre_hook(capture, with_kwargs=True)
    try:
        with contextlib.suppress(_CapturedError):
            forward()
    finally:
        handle.remove()
    if not captured or not all(isinstance(value, Tensor) for value in captured.values()):
        raise InputError(f"{type(network).__qualname__} gets no tensors that could be exported; use --to bf16")
    return {name: value.detach().cpu().clone() for name, value in captured.items()}


def calibration_inputs(module: Any, data: Any) -> Iterator[Mapping[str, Tensor]]:
    """Yield the inputs of a network for training images, as validation prepares them.

    Args:
        module: LightningModule of the model.
        data: its data module.
    """
    data.prepare_data()
    data.setup("fit")
    count = 0
    for batch in data.train_dataloader():
        inputs = capture_inputs(module.model, partial(module.validation_step, batch, 0))
        count += len(next(iter(inputs.values())))
        yield inputs
        if count >= CALIBRATION:
            return


class _Outputs(nn.Module):
    """A network whose arguments are in order, and whose outputs are a tuple of tensors."""

    def __init__(self, network: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        if self.names == [onnx_network.IMAGES]:
            output = self.network(*values)
        else:
            output = self.network(**dict(zip(self.names, values, strict=True)))
        if isinstance(output, Tensor):
            return (output,)
        if isinstance(output, tuple | list):
            return tuple(output)
        if hasattr(output, "start_logits"):
            return output.start_logits, output.end_logits
        return (output.logits,)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what exporters print and warn of on success."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
