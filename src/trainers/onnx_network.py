"""Networks of saved models in the ONNX format, run by ONNX Runtime in the place of torch's.

Files of others are data: only operators that ONNX Runtime itself has are accepted, and weights beside the graph in one file
of the same folder.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from config.errors import InputError, first_line, input_errors

FILE = "model.onnx"  # the graph, in a model folder
DATA = "model.onnx.data"  # its weights
IMAGES = "images"  # name of the input of networks for images; those for texts have the names of `inference.TEXT_INPUTS`
DOMAINS = ("", "ai.onnx", "com.microsoft")  # of the operators that ONNX Runtime has


class OnnxTexts(nn.Module):
    """A network from tokens to logits; `forward` has the arguments of transformers' models.

    Attributes:
        session: of ONNX Runtime.
        config: of transformers; None for a network of the user's own.
        longest_input: maximum number of tokens; None for no maximum.
    """

    def __init__(self, session: Any) -> None:
        """Set the session."""
        super().__init__()
        self.session, self.config, self.longest_input = session, None, None
        self._names = [tensor.name for tensor in session.get_inputs()]

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """Return the network's output, or a tuple of them; all arguments are int64 [B, L]."""
        inputs = {
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids) if attention_mask is None else attention_mask,
            "token_type_ids": torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids,
        }
        return _run(self.session, {name: inputs[name] for name in self._names})


class OnnxImages(nn.Module):
    """A network from images to logits.

    Attributes:
        session: of ONNX Runtime.
        num_classes: number of logits.
    """

    def __init__(self, session: Any) -> None:
        """Set the session."""
        super().__init__()
        self.session = session
        self.num_classes = int(session.get_outputs()[0].shape[-1])

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return logits [B, C] of images, float32 [B, 3, H, W]."""
        return _run(self.session, {IMAGES: images.float()})


def is_onnx(folder: str | Path | None) -> bool:
    """Whether a model folder has an ONNX graph in the place of weights."""
    return folder is not None and (Path(folder) / FILE).is_file()


def is_onnx_network(network: Any) -> bool:
    """Whether a network is run by ONNX Runtime: it has no parameters and no gradients."""
    return isinstance(network, OnnxTexts | OnnxImages)


def refuse_training(pretrained: Any) -> None:
    """Refuse a model folder in ONNX as the source of weights for training.

    Raises:
        InputError: it is one.
    """
    if isinstance(pretrained, str) and is_onnx(pretrained):
        raise InputError(
            f"model.pretrained={pretrained} is a model in ONNX, which cannot be trained: name the model that it was exported from"
        )


def load(folder: Path) -> Any:
    """Load the network of a model folder, with as many threads as torch has.

    Args:
        folder: the model folder.

    Returns:
        An `OnnxTexts` or an `OnnxImages`.

    Raises:
        InputError: ONNX Runtime is not installed, or the graph is damaged, has an operator that ONNX Runtime does not have, or
            other inputs than those of a network of a task.
    """
    path = folder / FILE
    runtime = _import("onnxruntime")
    check_graph(path)
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.log_severity_level = 3
    # Threads that wait for work in a loop would slow those of torch and of other requests.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with input_errors(lambda error: f"{path} cannot be loaded by ONNX Runtime: {first_line(error)[:300]}"):
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = {tensor.name for tensor in session.get_inputs()}
    if names == {IMAGES}:
        return OnnxImages(session)
    if "input_ids" in names and names <= {"input_ids", "attention_mask", "token_type_ids"}:
        return OnnxTexts(session)
    raise InputError(f"{path} is no network of a task: its inputs are {', '.join(sorted(names))[:200]}")


def check_graph(path: Path) -> None:
    """Check that a graph has nothing that could run or read what is not in its folder. The weights are not read.

    Args:
        path: the graph.

    Raises:
        InputError: it is damaged, has an operator of others, or names another file.
    """
    onnx = _import("onnx")
    with input_errors(lambda error: f"{path} is damaged: it cannot be read as an ONNX graph"):
        model = onnx.load(str(path), load_external_data=False)
    functions = {(function.domain, function.name) for function in model.functions}
    nodes = [*_nodes(model.graph.node), *(node for function in model.functions for node in _nodes(function.node))]
    for node in nodes:
        if node.domain not in DOMAINS and (node.domain, node.op_type) not in functions:
            raise InputError(
                f"{path} has the operator {node.op_type[:80]!r} of {node.domain[:80]!r}, which would be code of others: it is "
                "not run"
            )
    for tensor in _tensors(model.graph, nodes):
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), DATA)
        if location != DATA:
            raise InputError(f"{path} has weights in {location[:200]!r}: only {DATA} beside it is read")
    data = path.with_name(DATA)
    if data.is_symlink() and data.resolve().parent != path.resolve().parent:
        raise InputError(f"{data} is a link to another folder: it is not read")


def _nodes(nodes: Any) -> Iterator[Any]:
    """Yield nodes and those of their subgraphs."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _nodes(graph.node)


def _tensors(graph: Any, nodes: list[Any]) -> Iterator[Any]:
    """Yield the tensors of a graph, and those in attributes of nodes."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in nodes:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for inner in (attribute.g, *attribute.graphs):
                yield from inner.initializer


def _run(session: Any, inputs: dict[str, Tensor]) -> Tensor | tuple[Tensor, ...]:
    """Return the outputs on the device of the inputs. Arrays of the CPU are shared, not copied."""
    device = next(iter(inputs.values())).device
    arrays = {name: np.ascontiguousarray(tensor.detach().cpu().numpy()) for name, tensor in inputs.items()}
    outputs = tuple(torch.from_numpy(array).to(device) for array in session.run(None, arrays))
    return outputs[0] if len(outputs) == 1 else outputs


def _import(name: str) -> Any:
    """Import a package of the extra "serving".

    Raises:
        InputError: it is not installed.
    """
    from importlib import import_module

    try:
        return import_module(name)
    except ModuleNotFoundError:
        raise InputError(f"models in ONNX need {name}: pip install -e '.[serving]' in isotrain's checkout") from None
