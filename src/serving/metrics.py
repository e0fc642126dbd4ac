"""What a server counts, for Prometheus."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from serving.request_log import RequestInfo

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Counters, gauges and histograms.

    `http_…` have the names and labels of prometheus-fastapi-instrumentator, `process_…` and `python_info` those of
    prometheus-client, which dashboards know.

    Attributes:
        queue: rows that wait.
        queue_limit: rows that may wait.
        in_progress: requests that are under way.
        ready: 1 while the server is ready.
    """

    def __init__(self) -> None:
        disable_created_metrics()  # a series of times beside each other one, which nobody reads
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._requests = Counter("http_requests", "Requests.", ("handler", "method", "status"), registry=registry)
        self._seconds = Histogram(
            "http_request_duration_seconds", "Seconds from a request to its answer.", ("handler", "method"),
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.in_progress = Gauge("http_requests_inprogress", "Requests that are under way.", registry=registry)
        self._batches = Histogram(
            "inference_batch_size", "Rows of a batch.", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 1024),
            registry=registry,
        )  # fmt: skip
        self._predict_seconds = Histogram(
            "inference_batch_seconds", "Seconds of the prediction of a batch.", buckets=_SECONDS, registry=registry
        )
        self._queue_seconds = Histogram(
            "inference_queue_seconds", "Seconds of a request in the queue.", buckets=_SECONDS, registry=registry
        )
        self.queue = Gauge("inference_queue_rows", "Rows that wait.", registry=registry)
        self.queue_limit = Gauge("inference_queue_limit_rows", "Rows that may wait.", registry=registry)
        self._logged = Counter(
            "inference_logged_rows", "Rows of --log-inputs that were written, or dropped.", ("result",),
            registry=registry,
        )  # fmt: skip
        for result in ("written", "dropped"):
            self._logged.labels(result)
        self._model = Gauge("model_info", "The model that answers.", ("name", "version", "task"), registry=registry)
        self.ready = Gauge("model_ready", "Whether the server is ready: 1, else 0.", registry=registry)

    def request(self, info: RequestInfo) -> None:
        """Count a request that has ended."""
        self.in_progress.dec()
        self._requests.labels(info.handler, info.method, str(info.status)).inc()
        self._seconds.labels(info.handler, info.method).observe(info.seconds)
        if info.queue_seconds is not None:
            self._queue_seconds.observe(info.queue_seconds)

    def batch(self, rows: int, seconds: float) -> None:
        """Count a batch."""
        self._batches.observe(rows)
        self._predict_seconds.observe(seconds)

    def logged_rows(self, result: str, rows: int) -> None:
        """Count rows of --log-inputs: `written` or `dropped`."""
        self._logged.labels(result).inc(rows)

    def model(self, name: str, version: str, task: str) -> None:
        """Note which model answers."""
        self._model.clear()
        self._model.labels(name, version, task).set(1)

    def text(self) -> bytes:
        """Return all in Prometheus' text format."""
        return generate_latest(self._registry)
