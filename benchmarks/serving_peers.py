"""What a user would serve a question answering model with: a plain FastAPI handler, and LitServe with batches.

`python -m benchmarks.serving_peers plain|litserve --model FOLDER --port N`. Both tokenise to 384 tokens, as the model was trained, and
return the best span. Ours does more: windows of long contexts, the best of n spans, scores.
"""

from __future__ import annotations

import argparse
import os

LENGTH = 384


def main() -> None:
    """Serves until it is killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", choices=["plain", "litserve"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    (plain if options.server == "plain" else litserve)(options.model, options.port)


class Model:
    """Tokenizer and network of transformers, as its documentation uses them."""

    def __init__(self, folder: str) -> None:
        from transformers import AutoModelForQuestionAnswering, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.network = AutoModelForQuestionAnswering.from_pretrained(folder).eval()

    def answer(self, rows: list[dict[str, str]]) -> list[dict[str, str]]:
        """The best span of each context."""
        import torch

        encoded = self.tokenizer(
            [row["question"] for row in rows], [row["context"] for row in rows], truncation="only_second",
            max_length=LENGTH, padding=True, return_offsets_mapping=True, return_tensors="pt",
        )  # fmt: skip
        offsets = encoded.pop("offset_mapping").tolist()
        with torch.inference_mode():
            logits = self.network(**encoded)
        starts, ends = logits.start_logits.argmax(1).tolist(), logits.end_logits.argmax(1).tolist()
        return [
            {"prediction": row["context"][spans[start][0] : spans[max(start, end)][1]]}
            for row, spans, start, end in zip(rows, offsets, starts, ends, strict=True)
        ]


def plain(folder: str, port: int) -> None:
    """A handler that calls transformers for each request."""
    import uvicorn
    from fastapi import Body, FastAPI

    model = Model(folder)
    app = FastAPI()

    @app.get("/health")
    def health() -> dict[str, str]:
        return {}

    @app.post("/predict")
    def predict(row: dict[str, str] = Body()) -> dict[str, str]:  # noqa: B008
        return model.answer([row])[0]

    uvicorn.run(app, port=port, log_level="warning")


def litserve(folder: str, port: int) -> None:
    """LitServe: batches of up to 32 within 10 ms, one process for each core."""
    from litserve import LitServer

    from benchmarks.litserve_peer import Api

    cores = len(os.sched_getaffinity(0))
    server = LitServer(Api(folder), accelerator="cpu", workers_per_device=cores, timeout=120)
    server.run(port=port, num_api_servers=1, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
