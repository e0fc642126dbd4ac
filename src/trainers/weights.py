"""Weights of a checkpoint and whether they fit a network: no parameter keeps random values unnoticed."""

import errno
import logging
import re
import zipfile
import zlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from config.errors import InputError, first_line, input_errors
from config.parsing import read_json

logger = logging.getLogger(__name__)

# Added to parameter names by DistributedDataParallel, torch.compile and LightningModules.
WRAPPERS = ("module.", "_orig_mod.", "model.")
FILES = ("model.safetensors", "pytorch_model.bin")  # of a model folder; in shards, if there is FILE.index.json


def common_wrapper(names: Collection[str]) -> str:
    """Return the prefix of a wrapper that all parameter names begin with; "" if there is none."""
    return next((prefix for prefix in WRAPPERS if names and all(name.startswith(prefix) for name in names)), "")


def align_names(state: Mapping[str, Tensor], expected: Iterable[str], source: str) -> dict[str, Tensor]:
    """Remove the prefixes of wrappers from parameter names, or add a LightningModule's, so that they are the expected ones.

    A log message names a removed prefix.

    Args:
        state: a state dict.
        expected: names of a network's parameters and buffers.
        source: where the state comes from, for the message.

    Returns:
        The state with the expected names; unchanged if no prefix makes them equal.
    """
    names, renamed, removed = set(expected), dict(state), ""
    while True:
        for added in ("", "model."):
            if {added + name for name in renamed} == names:
                if removed:
                    log_prefix(source, removed)
                return {added + name: tensor for name, tensor in renamed.items()}
        prefix = common_wrapper(renamed)
        if not prefix:
            return dict(state)
        removed += prefix
        renamed = {name.removeprefix(prefix): tensor for name, tensor in renamed.items()}


def log_prefix(source: str, prefix: str) -> None:
    """Log that the prefix of a wrapper was removed from a checkpoint's parameter names."""
    logger.info('%s: removed the prefix "%s" from the names of its weights', source, prefix)


def read_folder(folder: Path, source: str) -> dict[str, Tensor]:
    """Read the weights of a model folder; nothing in its files is executed.

    Args:
        folder: has model.safetensors or pytorch_model.bin, or their shards with an index.
        source: for messages.

    Raises:
        InputError: it has neither, or a file cannot be read as weights.
    """
    file = check_folder(folder, source)
    if file.suffix != ".json":
        return read_file(file, source)
    shards = sorted(set(read_json(file)["weight_map"].values()))
    return {key: tensor for shard in shards for key, tensor in read_file(folder / shard, source).items()}


def check_folder(folder: Path, source: str) -> Path:
    """Return the file with the weights of a model folder, or the index of several.

    Raises:
        InputError: there is none.
    """
    for name in FILES:
        for path in (folder / name, folder / f"{name}.index.json"):
            if path.is_file():
                return path
    raise InputError(f"{source}: neither a run nor a folder with {' or '.join(FILES)}")


def read_file(path: Path, source: str) -> dict[str, Tensor]:
    """Read the state dict in a safetensors or PyTorch file; nothing in it is executed.

    Raises:
        InputError: the file cannot be read, or contains other objects than tensors and plain values.
    """
    with input_errors(lambda error: f"{source}: {path.name} cannot be read as weights: {describe_read_error(error)}"):
        if is_archive(path):
            check_zip(path)
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    return find_state(content, source)


def is_archive(path: Path) -> bool:
    """Return whether a file is a zip archive, as those of torch.save are, or a damaged one."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # its last bytes contradict each other
        return True


def check_zip(path: Path) -> None:
    """Check the CRC-32 of each record in a file of torch.save, which torch.load does not compare.

    Raises:
        InputError: a record is damaged.
    """
    problem = "its archive cannot be read"
    try:
        with zipfile.ZipFile(path) as archive:
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                raise InputError(f"{path} is compressed, as no file of torch.save is: it is not read")
            if (record := archive.testzip()) is None:
                return
            problem = f"the CRC-32 of {record} differs"
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, NotImplementedError, RuntimeError) as error:
        problem = first_line(error)
    except OSError as error:
        if error.errno != errno.EINVAL:  # of a seek to an impossible offset
            raise
        problem = "its archive has an impossible offset"
    raise InputError(f"{path} is damaged ({problem}): copy it again")


def find_state(content: Any, source: str) -> dict[str, Tensor]:
    """Return the state dict that a checkpoint is, or has as its `state_dict`.

    Raises:
        InputError: it has none.
    """
    state = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{source}: there is no state dict in it (names and tensors)")
    return dict(state)


def is_code_refused(error: BaseException) -> bool:
    """Whether transformers refused to execute code that a checkpoint contains or names."""
    return "trust_remote_code" in str(error)


def describe_read_error(error: BaseException) -> str:
    """Describe in one line why a file of weights could not be read."""
    if is_code_refused(error):
        return (
            "it needs code of its own (auto_map in its config.json), which is not run; if you trust its author, say so on "
            "the command line: model.trust_remote_code=true (predict: --trust-remote-code)"
        )
    if "weights_only" in str(error).lower() or type(error).__name__ == "UnpicklingError":
        return "it contains pickled objects, which could execute code; store a state dict, or safetensors"
    return first_line(error)


def describe_mismatch(error: BaseException) -> str:
    """Describe in one line why weights could not be loaded into a network."""
    if "loading state_dict" in str(error):
        return f"the weights are of another architecture: {' '.join(str(error).split())[:300]}"
    return describe_read_error(error)


def load_transformers(auto_class: Any, name: str, source: str, **options: Any) -> tuple[Any, tuple[str, ...]]:
    """Load a transformers model of which at most the head is new.

    Args:
        auto_class: transformers' class that loads it.
        name: Hub name or folder.
        source: for messages.
        options: further arguments of `from_pretrained`; without `trust_remote_code` no code of a checkpoint is run.

    Returns:
        The network, and the names of the parameters of its head that the checkpoint lacks, which are random.

    Raises:
        InputError: other parameters than the head's are missing, or have another shape.
    """
    prefix = ""
    options = {"trust_remote_code": False, **options} if hasattr(auto_class, "_model_mapping") else options
    trust_remote_code = bool(options.get("trust_remote_code"))
    while True:
        if prefix:
            options["key_mapping"] = {f"^{re.escape(prefix)}": ""}
        network, info = auto_class.from_pretrained(
            name, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
        unexpected = [key.removeprefix(prefix) for key in info["unexpected_keys"]]
        shapes = {key: (tuple(stored), tuple(shape)) for key, stored, shape in info["mismatched_keys"]}
        absent = sorted({*info["missing_keys"], *shapes})
        body = _without_head(network, absent, trust_remote_code)
        wrapper = common_wrapper(unexpected) if body else ""
        if not wrapper:
            break
        prefix += wrapper
    if prefix and not body:
        log_prefix(source, prefix)
        # Otherwise transformers would restore the prefix on saving.
        network = type(network).from_pretrained(
            None, config=network.config, state_dict=network.state_dict(), attn_implementation=None, dtype=torch.float32
        )
    check_body(source, body, unexpected, shapes)
    check_finite(source, network)
    if surplus := _without_head(network, unexpected, trust_remote_code):
        logger.warning("%s has weights that the model does not have, which are not used: %s", source, listing(surplus))
    return network, tuple(absent)


def load_timm(name: str, folder: Path | None, num_classes: int | None, **arguments: Any) -> tuple[Any, tuple[str, ...]]:
    """Load a timm model of which at most the classifier is new.

    timm reads all weights of a checkpoint with the network's number of classes, but ignores what is missing from others.
    Therefore a checkpoint with other classes is loaded with its own, and all weights but the classifier's are copied.

    Args:
        name: name of a timm model.
        folder: a timm model folder with the weights; None for timm's own.
        num_classes: number of classes; None for the checkpoint's.
        arguments: further arguments of `timm.create_model`.

    Returns:
        The network, and the names of the parameters of its classifier, if they are random.

    Raises:
        RuntimeError: the weights are of another architecture.
    """
    import timm

    source = f"local-dir:{folder}" if folder else name
    own_classes = _stored_classes(folder) if folder else timm.get_pretrained_cfg(name).num_classes
    network = (
        None if num_classes in (None, own_classes) else timm.create_model(source, num_classes=num_classes, **arguments)
    )
    if folder and common_wrapper(_stored_names(folder)):
        names = timm.create_model(source, **arguments).state_dict()
        state = align_names(read_folder(folder, source), names, str(folder))
        arguments["pretrained_cfg_overlay"] = {"source": "", "state_dict": state}
    loaded = timm.create_model(source, pretrained=True, **arguments)
    loaded.pretrained_cfg.pop("state_dict", None)
    check_finite(source, loaded)
    if network is None:
        return loaded, ()
    head = _classifier_names(network)
    state = {key: tensor for key, tensor in loaded.state_dict().items() if key not in head}
    missing, unexpected = network.load_state_dict(state, strict=False)
    check_body(source, sorted(set(missing) - head), unexpected, {})
    return network, tuple(missing)


def _stored_classes(folder: Path) -> int | None:
    """Return the number of classes in a timm folder's config.json."""
    config = read_json(folder / "config.json")
    classes = config.get("num_classes", (config.get("pretrained_cfg") or {}).get("num_classes"))
    return None if classes is None else int(classes)


def _stored_names(folder: Path) -> list[str]:
    """Return the names in a model folder's weights; empty for a folder whose files only timm reads."""
    path = folder / FILES[0]
    if path.is_file():
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            return list(file.keys())
    return list(read_file(folder / FILES[1], str(folder))) if (folder / FILES[1]).is_file() else []


def _classifier_names(network: Any) -> set[str]:
    """Return the names of the parameters of a timm model's classifier, of which some models have two."""
    classifier = network.get_classifier()
    heads = classifier if isinstance(classifier, tuple | list | nn.ModuleList) else [classifier]
    parameters = {id(parameter) for head in heads for parameter in head.parameters()}
    return {name for name, parameter in network.named_parameters() if id(parameter) in parameters}


def check_body(
    source: str, body: Collection[str], unexpected: Collection[str], shapes: Mapping[str, tuple[Any, Any]]
) -> None:
    """Check that no parameter outside of a network's head keeps random values.

    Args:
        source: for the message.
        body: parameters that the checkpoint lacks, or has in another shape.
        unexpected: names in the checkpoint that the network does not have.
        shapes: shapes in the checkpoint and in the network, of those that differ.

    Raises:
        InputError: there is such a parameter.
    """
    if not body:
        return
    missing = [key for key in body if key not in shapes]
    differing = [f"{key} is {stored}, not {shape}" for key, (stored, shape) in shapes.items() if key in body]
    problems = [f"it lacks {listing(missing)}"] if missing else []
    problems += [f"other shapes than config.json describes: {listing(differing)}"] if differing else []
    problems += [f"it has {listing(sorted(unexpected))} instead"] if missing and unexpected else []
    raise InputError(f"{source}: the weights are of another architecture: {'; '.join(problems)}")


def check_finite(source: str, network: nn.Module) -> None:
    """Check that all parameters that were loaded are finite.

    Args:
        source: for the message.
        network: the network.

    Raises:
        InputError: one is not.
    """
    # A sum is not finite if a term is not; those that overflow are looked at one by one.
    for name, parameter in network.named_parameters():
        if not torch.isfinite(parameter.sum()) and not torch.isfinite(parameter).all():
            raise InputError(f"{source}: the weights are damaged, or of a training that diverged: {name} is not finite")


def check_complete(source: str, new_parameters: Collection[str]) -> None:
    """Check that a saved model has all its weights, before it predicts.

    Args:
        source: for the message.
        new_parameters: parameters that the checkpoint lacks, or has in another shape.

    Raises:
        InputError: there are such parameters.
    """
    if new_parameters:
        raise InputError(
            f"{source}: its weights do not include those of the head ({listing(sorted(new_parameters))}), which would be "
            "random; train it first: python train.py model.pretrained=<the folder>"
        )


def log_new_head(new_parameters: Collection[str]) -> None:
    """Log that the head of a network starts with random weights."""
    if new_parameters:
        logger.info("the checkpoint has no such head; it starts with random weights: %s", listing(new_parameters))


def listing(names: Collection[str], limit: int = 3) -> str:
    """Join the first names, with the number of the others."""
    first = ", ".join(list(names)[:limit])
    return f"{first} and {len(names) - limit} more" if len(names) > limit else first


def _without_head(network: Any, names: Collection[str], trust_remote_code: bool) -> list[str]:
    """Return the names that belong neither to the head of a transformers model nor to the pooler before it."""
    if not names:
        return []
    prefix = f"{network.base_model_prefix}."
    if not hasattr(network, network.base_model_prefix):  # T5's heads have the encoder's layers beside them
        body = tuple(f"{child}." for child in _base_children(network, trust_remote_code))
        return sorted(name for name in names if name.startswith((*body, prefix)))
    return sorted(name for name in names if name.startswith(prefix) and ".pooler." not in name)


def _base_children(network: Any, trust_remote_code: bool) -> list[str]:
    """Return the names of the parts of a transformers model without its head."""
    from transformers import AutoModel

    with torch.device("meta"):
        base = AutoModel.from_config(network.config, trust_remote_code=trust_remote_code)
        return [name for name, _ in base.named_children()]
