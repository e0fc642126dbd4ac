"""Whether a model and a data set have the same classes."""

from collections.abc import Sequence

from config.errors import InputError


def check_same_classes(model: Sequence[str] | None, data: Sequence[str]) -> None:
    """Refuses data with other classes than a model's.

    Args:
        model: ids of its classes in the order of its outputs; None where it does not say.
        data: those of the data.

    Raises:
        InputError: they differ.
    """
    if not model or list(model) == list(data):
        return
    strange = [name for name in data if name not in model][:3]
    about = f"such as {', '.join(strange)}" if strange else "in another number or order"
    raise InputError(f"the data has other classes than the model ({len(data)} and {len(model)}; {about})")
