"""The HTTP interface of a server: the Open Inference Protocol V2, /predict, health and metrics."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from config.errors import InputError
from runs.provenance import project_version
from serving import documentation, protocol
from serving.batching import Batcher, QueueFullError
from serving.input_log import InputLog
from serving.metrics import CONTENT_TYPE, Metrics
from serving.model import ServedModel
from serving.protocol import RequestError
from serving.request_log import RequestInfo, follow_requests, log_request

logger = logging.getLogger(__name__)
Row = dict[str, Any]


@dataclass(frozen=True)
class Limits:
    """What a server accepts.

    Attributes:
        batch_size: rows that are predicted together.
        delay: seconds to wait for a full batch.
        queue_size: rows that may wait; more are answered with 503.
        timeout: seconds of a request, its body included, after which it is answered with 504.
        body_size: bytes of a body.
    """

    batch_size: int = 32
    delay: float = 0.002
    queue_size: int = 1024
    timeout: float = 30.0
    body_size: int = 16 * 2**20


@dataclass(frozen=True)
class Service:
    """A model with its queue. A request keeps the one that it began with.

    Attributes:
        model: the model.
        batcher: its queue.
    """

    model: ServedModel
    batcher: Batcher


class Server:
    """A served model and its queue.

    Attributes:
        service: the model that answers new requests; None while the first one is loaded.
        accepts: whether requests are welcome.
        limits: what is accepted.
        metrics: what is counted.
    """

    def __init__(self, limits: Limits, log_format: str = "none", input_log: InputLog | None = None) -> None:
        """Make a server without a model.

        Args:
            limits: what is accepted.
            log_format: of a line about each request: text, json or none.
            input_log: takes inputs and answers; None for none.
        """
        self.service: Service | None = None
        self.accepts = False
        self.limits, self.metrics = limits, Metrics()
        self._log_format, self._input_log = log_format, input_log
        if input_log is not None:
            input_log.on_rows = self.metrics.logged_rows
        self.metrics.queue_limit.set(limits.queue_size)

    def start(self, model: ServedModel) -> None:
        """Answer new requests with a model. Those that have begun are answered by the one before."""
        limits = self.limits
        batcher = Batcher(
            model.predict, model.length, limits.batch_size, limits.delay, limits.queue_size, self.metrics.batch,
            model.parallel,
        )  # fmt: skip
        self.service, self.accepts = Service(model, batcher), True
        self.metrics.model(model.name, model.version, model.task)

    async def predict(self, service: Service, rows: Sequence[Row], info: RequestInfo) -> list[Row]:
        """Return a prediction for each row.

        Args:
            service: the model with its queue.
            rows: the rows.
            info: takes what is known of the request.

        Raises:
            RequestError: an input cannot be read, or too many wait.
        """
        info.model, info.version, info.rows = service.model.name, service.model.version, rows
        try:
            info.predictions = predictions = await service.batcher.submit(rows, info.note_queue)
            return predictions
        except QueueFullError:
            raise RequestError(f"at most {self.limits.queue_size} inputs may wait; send it again later", 503) from None
        except InputError as error:
            raise RequestError(str(error)) from None

    @property
    def ready(self) -> bool:
        """Whether requests are welcome and can be answered."""
        return self.accepts and self.service is not None and self.service.model.is_alive()

    def is_ending(self) -> bool:
        """Whether requests were welcome, and are no more."""
        return self.service is not None and not self.accepts

    def end_request(self, info: RequestInfo) -> None:
        """Count and log a request whose answer was sent."""
        self.metrics.request(info)
        log_request(info, self._log_format)
        if self._input_log is not None and info.status == 200:
            self._input_log.add(info)

    def close(self) -> None:
        """Write what inputs and answers wait to be logged."""
        if self._input_log is not None:
            self._input_log.close()

    def waiting(self) -> int:
        """Return the number of rows that wait."""
        return self.service.batcher.waiting if self.service is not None else 0


Handler = Callable[[Request], Awaitable[Response]]


def create_app(server: Server) -> FastAPI:
    """Return the application of a server."""
    version = project_version()
    app = FastAPI(title="isotrain", version=version, description=documentation.DESCRIPTION, redoc_url=None)

    def add(path: str, method: str, handler: Handler, **description: Any) -> None:
        route = _handle_errors(server, handler)
        app.add_api_route(path, route, methods=[method], response_class=Response, response_model=None, **description)

    async def server_metadata(_: Request) -> Response:
        return JSONResponse({"name": "isotrain", "version": version, "extensions": ["binary_tensor_data"]})

    async def live(_: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(_: Request) -> Response:
        return JSONResponse({"ready": server.ready}, 200 if server.ready else 503)

    async def model_metadata(request: Request) -> Response:
        model = _service(server, request).model
        tensors = protocol.metadata(model.columns, model.outputs)
        return JSONResponse(
            {"name": model.name, "versions": [model.version], "platform": f"isotrain_{model.task}", **tensors}
        )

    async def model_ready(request: Request) -> Response:
        model = _service(server, request).model
        return JSONResponse({"name": model.name, "ready": server.ready}, 200 if server.ready else 503)

    async def infer(request: Request) -> Response:
        service = _service(server, request)
        model = service.model
        body = await _read_body(request, server.limits.body_size)
        decoded = protocol.decode(body, request.headers.get(protocol.HEADER_LENGTH), model.columns)
        request.state.info.take_id(decoded.id)
        predictions = await _unless_disconnected(request, server.predict(service, decoded.rows, request.state.info))
        content, header = protocol.encode(decoded, predictions, model.outputs, model.name, model.version)
        if header is None:
            return Response(content, media_type="application/json")
        return Response(content, media_type="application/octet-stream", headers={protocol.HEADER_LENGTH: str(header)})

    async def predict(request: Request) -> Response:
        service = _loaded(server)
        value = protocol.parse_json(await _read_body(request, server.limits.body_size))
        rows = _rows(value, service.model)
        predictions = await _unless_disconnected(request, server.predict(service, rows, request.state.info))
        answer: Any = predictions if isinstance(value, list) else predictions[0]
        return Response(json.dumps(answer, ensure_ascii=False, allow_nan=False), media_type="application/json")

    async def metrics(_: Request) -> Response:
        server.metrics.queue.set(server.waiting())
        server.metrics.ready.set(server.ready)
        return Response(server.metrics.text(), media_type=CONTENT_TYPE)

    add("/v2", "GET", server_metadata, **documentation.SERVER)
    add("/v2/health/live", "GET", live, **documentation.LIVE)
    add("/v2/health/ready", "GET", ready, **documentation.READY)
    for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        parameters = documentation.path_parameters(path)
        add(path, "GET", model_metadata, **documentation.with_parameters(documentation.MODEL, parameters))
        add(f"{path}/ready", "GET", model_ready, **documentation.with_parameters(documentation.MODEL_READY, parameters))
        add(f"{path}/infer", "POST", infer, **documentation.with_parameters(documentation.INFER, parameters))
    add("/predict", "POST", predict, **documentation.PREDICT)
    add("/metrics", "GET", metrics, **documentation.METRICS)

    def description() -> dict[str, Any]:
        value = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        if server.service is None:
            return value
        model = server.service.model
        return documentation.complete(value, model.name, model.version, model.columns)

    app.openapi = description  # type: ignore[method-assign]

    @app.exception_handler(HTTPException)
    async def no_such_address(request: Request, error: HTTPException) -> Response:
        message = f"{request.method} {request.url.path}: {error.detail}"
        return JSONResponse({"error": message}, error.status_code, headers=error.headers)

    app.add_middleware(follow_requests, server.metrics.in_progress.inc, server.end_request, server.is_ending)
    return app


def _handle_errors(server: Server, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """A handler whose errors are JSON objects, and that ends in time."""

    async def route(request: Request) -> Response:
        try:
            async with asyncio.timeout(server.limits.timeout):
                return await handler(request)
        except RequestError as error:
            message, status = str(error), error.status
        except ClientDisconnect:
            message, status = "the client has closed the connection", 499
        except TimeoutError:
            message, status = f"no answer within {server.limits.timeout:g} s", 504
        except Exception:
            logger.exception("%s %s failed", request.method, request.url.path)
            message, status = "a bug in the server; its log has the traceback", 500
        request.state.info.error = message
        return JSONResponse({"error": message}, status, {"Retry-After": "1"} if status == 503 else None)

    return route


def _loaded(server: Server) -> Service:
    if server.service is None:
        raise RequestError("the model is being loaded", 503)
    return server.service


def _service(server: Server, request: Request) -> Service:
    """Return the model that an address names."""
    service = _loaded(server)
    model = service.model
    name, number = request.path_params["name"], request.path_params.get("version")
    if name != model.name:
        raise RequestError(f"there is no model {name[:80]!r}; this server has {model.name}", 404)
    if number is not None and number != model.version:
        raise RequestError(f"there is no version {number[:80]!r} of {name}; this server has {model.version}", 404)
    return service


async def _read_body(request: Request, limit: int) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise RequestError(f"the body has more than {limit:,} bytes", 413)
        parts.append(part)
    return b"".join(parts)


async def _unless_disconnected(request: Request, answer: Awaitable[list[Row]]) -> list[Row]:
    """Await an answer; who has hung up leaves the queue."""
    task = asyncio.ensure_future(answer)
    disconnection = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, disconnection}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise RequestError("the client has closed the connection", 499)
        return task.result()
    finally:
        task.cancel()
        disconnection.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _rows(value: Any, model: ServedModel) -> list[Row]:
    """Return the rows of the body of /predict: an input, or a list of inputs."""
    inputs = value if isinstance(value, list) else [value]
    if not 1 <= len(inputs) <= protocol.MAX_ROWS:
        raise RequestError(f"{len(inputs)} inputs; send 1 to {protocol.MAX_ROWS}")
    return [_row(number, fields, model) for number, fields in enumerate(inputs, 1)]


def _row(number: int, fields: Any, model: ServedModel) -> Row:
    if not isinstance(fields, Mapping):
        raise RequestError(f"input {number}: must be an object with {', '.join(model.columns)}")
    if unknown := [name for name in fields if name != "id" and name not in model.columns]:
        raise RequestError(
            f"input {number}: there is no {unknown[0][:80]!r}; an input has {', '.join(model.columns)}, and may have id"
        )
    row: Row = {"id": str(number) if fields.get("id") is None else fields["id"]}
    if not isinstance(row["id"], str | int) or isinstance(row["id"], bool):
        raise RequestError(f"input {number}: id must be text or a whole number")
    row["id"] = protocol.to_text(f"input {number}: id", str(row["id"]))
    for name, example in model.columns.items():
        text = fields.get(name)
        if text is None and name not in model.required:
            continue
        if not isinstance(text, str):
            raise RequestError(
                f"input {number}: {name} must be text"
                + (", the base64 of a file" if isinstance(example, bytes) else "")
            )
        convert = protocol.to_content if isinstance(example, bytes) else protocol.to_text
        row[name] = convert(f"input {number}: {name}", text)
    return row
