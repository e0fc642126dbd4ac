"""Image sizes that timm's architectures take, found without memory or data: on PyTorch's meta device."""

import functools
import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from config.errors import InputError, first_line

_STEP = 32  # pixels, between the sizes that are tried for a message: most networks halve images five times
_TRIES = 4  # on either side of the refused size


def size_arguments(architecture: str, arguments: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Return the arguments with which a timm architecture takes square images of a size.

    Architectures with positions or windows of a fixed number take `img_size`; convolutional ones take images of any
    size without it.

    Args:
        architecture: name of a timm model, without a tag.
        arguments: arguments of timm.create_model.
        size: side of the images, in pixels.

    Returns:
        `img_size`, or nothing.

    Raises:
        InputError: timm does not take the arguments, or the network built with them does not turn images of three
            channels and this size into one logit per class. The message names sizes that it takes.
    """
    import timm

    text = json.dumps(dict(arguments), sort_keys=True, default=str)
    options = _options(architecture, arguments, size)
    problems = [_find_problem(architecture, text, json.dumps(option), size) for option in options]
    if None in problems:
        return options[problems.index(None)]
    failures = [problem for problem in problems if problem is not None and not isinstance(problem, TypeError)]
    if not failures:
        raise InputError(f"model.arguments: timm's {architecture} does not take them ({problems[0]})")
    reason = first_line(failures[0])[:200]
    native_size = getattr(timm.get_pretrained_cfg(architecture), "input_size", (3, 224, 224))[-1]
    sizes = sorted({*_sizes_near(architecture, arguments, size), *_sizes_among(architecture, arguments, [native_size])})
    if sizes:
        raise InputError(
            f"data.image_size={size}: timm's {architecture} does not take images of this size ({reason}); of the sizes "
            f"tried it takes {', '.join(map(str, sizes))}"
        )
    network = f" with model.arguments={json.dumps(dict(arguments), default=str)}" if arguments else ""
    raise InputError(
        f"model.name={architecture}: timm's network{network} cannot classify images of three channels ({reason})"
    )


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Check that further arguments of timm.create_model leave the number of channels and classes to the data.

    Raises:
        InputError: they do not.
    """
    if arguments.get("in_chans", 3) != 3:
        raise InputError(
            f"model.arguments.in_chans={arguments['in_chans']}: images have three channels, red, green and blue; "
            "greyscale images are converted. Remove in_chans"
        )
    if "num_classes" in arguments:
        raise InputError("model.arguments.num_classes: the data determines the number of classes; remove it")


def _options(architecture: str, arguments: Mapping[str, Any], size: int) -> list[dict[str, Any]]:
    """Return the arguments to try, in this order."""
    import timm

    if "img_size" in arguments:
        return [{}]
    config = timm.get_pretrained_cfg(architecture)
    if not getattr(config, "fixed_input_size", False):
        return [{}, {"img_size": size}]
    # Some scale images to their own size inside. timm would pass that size too, but not for an exported config.json.
    return [{"img_size": size}, {"img_size": config.input_size[-1]}]


def _sizes_near(architecture: str, arguments: Mapping[str, Any], size: int) -> Iterator[int]:
    """Yield the nearest smaller and the nearest larger size that an architecture takes, of a few multiples of 32."""
    below, above = (size - 1) // _STEP * _STEP, (size // _STEP + 1) * _STEP
    for sizes in (range(below, 0, -_STEP), range(above, above + _TRIES * _STEP, _STEP)):
        yield from _sizes_among(architecture, arguments, list(sizes)[:_TRIES])


def _sizes_among(architecture: str, arguments: Mapping[str, Any], sizes: list[int]) -> Iterator[int]:
    """Yield the first of some sizes that an architecture takes."""
    text = json.dumps(dict(arguments), sort_keys=True, default=str)
    for size in sizes:
        for option in _options(architecture, arguments, size):
            if _find_problem(architecture, text, json.dumps(option), size) is None:
                yield size
                return


@functools.cache
def _find_problem(architecture: str, arguments: str, option: str, size: int) -> Exception | None:
    """Build a network on the meta device and pass two images through it; return the error, if any.

    Args:
        architecture: name of a timm model.
        arguments: of timm.create_model, in JSON.
        option: further ones, in JSON.
        size: side of the images, in pixels.
    """
    import timm

    kwargs = {**json.loads(arguments), **json.loads(option), "num_classes": 2}
    logging.disable(logging.WARNING)  # timm's, of shapes that it adapts
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), torch.device("meta"):
            network = timm.create_model(architecture, **kwargs)
            for mode in (True, False):
                output = network.train(mode)(torch.empty(2, 3, size, size))
                if not isinstance(output, torch.Tensor) or output.shape != (2, 2):
                    return ValueError("its output is not one logit per class")
    except Exception as error:  # timm and torch raise many classes of exceptions
        return error
    finally:
        logging.disable(logging.NOTSET)
    return None
