"""Preprocessing of images for a timm model folder, as timm's validate.py reads it from config.json."""

import inspect
from collections.abc import Mapping
from typing import Any

from config.errors import InputError
from trainers.stem import has_small_stem


def read_preprocessing(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of conf/data with which a model's images are prepared.

    Values and defaults are those of timm's `resolve_data_config` with `use_test_size=True`, as in its validate.py. A
    model with a fixed size has no other test size. Of a model with a small stem, whose folder describes images of twice
    the size, they are the settings of its training.

    Args:
        config: content of a timm folder's config.json.

    Returns:
        `image_size`, `crop_pct`, `crop_mode`, `interpolation`, `mean` and `std`.

    Raises:
        InputError: images that are not square or have no three channels, or an interpolation that is unknown.
    """
    from PIL import Image
    from timm.data import resolve_data_config

    stored = dict(config.get("pretrained_cfg") or config)  # older folders have one level
    arguments = config.get("model_args") or {}
    fixed = stored.get("fixed_input_size") and not arguments.get("dynamic_img_size")
    if fixed and (size := arguments.get("img_size")):
        stored["input_size"] = (3, size, size) if isinstance(size, int) else (3, *size)
    values = resolve_data_config(pretrained_cfg=stored, use_test_size=not fixed)
    channels, height, width = values["input_size"]
    channels = arguments.get("in_chans", channels)
    if channels != 3 or height != width:
        raise InputError(
            f"config.json: the model takes images of {channels} channel(s) and {width} x {height} pixels; square images "
            "of three channels are supported"
        )
    interpolation = str(values["interpolation"])
    if has_small_stem(config):
        height, interpolation = height // 2, (config.get("small_stem") or {}).get("interpolation", "bicubic")
    if interpolation.upper() not in Image.Resampling.__members__:
        raise InputError(f"config.json: interpolation={interpolation} is not a filter of Pillow")
    return {
        "image_size": int(height),
        "crop_pct": float(values["crop_pct"]),
        "crop_mode": str(values["crop_mode"]),
        "interpolation": interpolation,
        "mean": list(values["mean"]),
        "std": list(values["std"]),
    }


def read_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of the network in a timm folder's config.json.

    Args:
        config: content of config.json.

    Raises:
        InputError: arguments of timm.create_model itself, which name other weights, files or places on the network.
    """
    import timm

    arguments = config.get("model_args") or {}
    if not isinstance(arguments, Mapping):
        raise InputError("config.json is damaged: model_args must be a mapping")
    for name, parameter in inspect.signature(timm.create_model).parameters.items():
        if name in arguments and parameter.kind is not parameter.VAR_KEYWORD:
            raise InputError(f"config.json: model_args.{name} is not an argument of the network; remove it")
    return dict(arguments)
