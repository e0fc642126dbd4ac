"""The graph of the pipeline (definition.py)."""

# The steps that each step waits for, in the order of the pipeline.
DEPENDENCIES: dict[str, tuple[str, ...]] = {
    "data": (), "plan": ("data",), "quality": ("plan",), "quality gate": ("quality",), "drift": ("quality gate",),
    "drift gate": ("drift",), "tune": ("drift gate",), "train": ("tune",), "evaluate": ("train",), "explain": ("train",),
    "explanation gate": ("explain",), "benchmark": ("train",), "benchmark gate": ("benchmark",),
    "register": ("evaluate", "explanation gate", "benchmark gate"), "finish": (),
}  # fmt: skip
