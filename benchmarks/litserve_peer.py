"""The LitServe server of `benchmarks.serving_peers`; its class must be that of a module, as its processes import it."""

from __future__ import annotations

from typing import Any

import litserve

from benchmarks.serving_peers import Model


class Api(litserve.LitAPI):  # type: ignore[misc]
    """Questions in batches of up to 32 that come within 10 ms."""

    def __init__(self, folder: str) -> None:
        super().__init__(max_batch_size=32, batch_timeout=0.01)
        self.folder = folder

    def setup(self, device: str) -> None:
        """Load the model in a process."""
        import torch

        torch.set_num_threads(1)
        self.model = Model(self.folder)

    def decode_request(self, request: dict[str, str], **_: Any) -> dict[str, str]:
        """The question."""
        return request

    def batch(self, inputs: list[dict[str, str]]) -> list[dict[str, str]]:
        """All questions."""
        return inputs

    def predict(self, rows: Any, **_: Any) -> list[dict[str, str]]:
        """Their answers."""
        return self.model.answer(rows)

    def unbatch(self, output: list[dict[str, str]]) -> list[dict[str, str]]:
        """All answers."""
        return output

    def encode_response(self, output: dict[str, str], **_: Any) -> dict[str, str]:
        """The answer."""
        return output
