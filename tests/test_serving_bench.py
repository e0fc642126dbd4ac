"""`python -m serving bench` measures a server, and counts what fails."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.conftest import Run
from tests.test_serving import Serve, end, folders, serve, trained

__all__ = ["folders", "serve", "trained"]  # fixtures
pytest.importorskip("prometheus_client")
CODES = (200, 200, 503, 200)


@pytest.fixture
def refusing() -> Iterator[str]:
    """A server that refuses every fourth request."""
    numbers = iter(range(10**9))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer(200, {})

        def do_POST(self) -> None:
            rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert {"question", "context", "id"} == set(rows[0])
            self.answer(CODES[next(numbers) % 4], [{"prediction": ""}] * len(rows))

        def answer(self, status: int, value: object) -> None:
            content = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_server_is_measured_under_each_load(trained: Callable[[str], Path], serve: Serve, run: Run) -> None:
    folder = trained("questions")
    server = serve(folder)
    options = ["--clients", "1", "4", "--rates", "20", "--seconds", "1", "--batch-size", "2", "--limit", "6"]
    done = run("-m", "serving", "bench", server.url, f"run={folder}", *options, "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [(row.get("clients"), row.get("rate")) for row in rows] == [(1, None), (4, None), (None, 20.0)]
    for row in rows:
        assert row["failed"] == {}
        assert 0 < row["median_ms"] <= row["p95_ms"] <= row["p99_ms"]
        assert row["answers_per_second"] == pytest.approx(2 * row["requests"] / row["seconds"], rel=0.01)
    assert end(server) == 0
    done = run("-m", "serving", "bench", server.url, f"run={folder}", "--wait", "0")
    assert done.returncode == 7
    assert "does not answer" in done.stderr


def test_requests_that_fail_are_counted_by_status(refusing: str, trained: Callable[[str], Path], run: Run) -> None:
    command = ("-m", "serving", "bench", refusing, f"run={trained('questions')}", "--clients", "2", "--seconds", "1")
    done = run(*command)
    assert done.returncode == 0, done.stderr
    head, row = done.stdout.splitlines()
    assert re.split(r"  +", head) == ["load", "answers/s", "ms: 50 %", "95 %", "99 %", "failed, by status"]
    count = re.fullmatch(r"2 clients +(\S+) +\S+ +\S+ +\S+ +(\d+) x 503", row)
    assert count, row
    assert float(count[1]) == pytest.approx(3 * int(count[2]), rel=0.2)
    done = run(*command, "--seconds", "0")
    assert done.returncode == 2
    assert "--seconds 0: must be from 0.1 to 86400" in done.stderr
