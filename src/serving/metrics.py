"""What a server counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Counters, with the names that dashboards for HTTP services expect."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ("handler", "method", "status")
        self._requests = Counter("http_requests", "Requests.", labels, registry=self._registry)
        self._seconds = Histogram(
            "http_request_duration_seconds", "Seconds from a request to its answer.", ("handler",), buckets=_SECONDS,
            registry=self._registry,
        )  # fmt: skip
        self._batches = Histogram(
            "inference_batch_size",
            "Rows of a batch.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 1024),
            registry=self._registry,
        )
        self._predict_seconds = Histogram(
            "inference_batch_seconds",
            "Seconds of the prediction of a batch.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.queue = Gauge("inference_queue_rows", "Rows that wait.", registry=self._registry)
        self._model = Gauge(
            "model_info", "The model that answers.", ("name", "version", "task"), registry=self._registry
        )

    def request(self, handler: str, method: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(handler, method, str(status)).inc()
        self._seconds.labels(handler).observe(seconds)

    def batch(self, rows: int, seconds: float) -> None:
        """Count a batch."""
        self._batches.observe(rows)
        self._predict_seconds.observe(seconds)

    def model(self, name: str, version: str, task: str) -> None:
        """Note which model answers."""
        self._model.clear()
        self._model.labels(name, version, task).set(1)

    def text(self) -> bytes:
        """Return all in Prometheus' text format."""
        return generate_latest(self._registry)
