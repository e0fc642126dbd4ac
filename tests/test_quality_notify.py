"""Who is told that a gate failed: over real HTTP, and never in the way of the run."""

import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quality import notify
from test_quality_gate import misplaced, questions


class Server(http.server.ThreadingHTTPServer):
    """Keeps what is posted; answers as it is told."""

    posted: list[dict[str, Any]]
    status = 200
    slow = 0.0


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["Content-Type"] == "application/json"
        self.server.posted.append(json.loads(body))
        time.sleep(self.server.slow)
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(("127.0.0.1", 0), Handler)
    made.posted = []
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def address(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}/services/T0/B0/secret"


def test_slack_and_the_summary_are_told_of_a_failure_alone(run: Any, server: Server, tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    told = (f"quality.webhook={address(server)}", f"quality.summary={summary}")
    command = ("train.py", "data=squad", "trainer.max_steps=1", *told)
    assert run(*command, f"data.path={questions(tmp_path / 'good')}", f"hydra.run.dir={tmp_path / 'a'}").returncode == 0
    assert (server.posted, summary.read_text()) == ([], "before\n")
    bad = questions(tmp_path / "bad", train=misplaced)
    done = run(*command, f"data.path={bad}", f"hydra.run.dir={tmp_path / 'b'}")
    assert done.returncode == 4
    assert len(server.posted) == 1
    assert "every answer is where it says to be (1 row, e.g. train-3)" in server.posted[0]["text"]
    assert set(server.posted[0]) == {"text"}
    assert summary.read_text().startswith("before\n# Data contract squad: failed\n")
    # The address is a secret: it is nowhere in what the run leaves or says.
    assert "services/T0" not in done.stderr + (tmp_path / "b" / "run.json").read_text()
    server.status = 500
    done = run(*command, f"data.path={bad}", f"hydra.run.dir={tmp_path / 'c'}", "quality=warn")
    assert done.returncode == 0
    assert "the address answered 500" in done.stderr


@pytest.mark.parametrize(
    "where",
    [
        "http://127.0.0.1:9/x",
        "nobody at all",
        "http://nowhere.invalid/x",
        "file:///etc/passwd",
        "http://",
        "http://127.0.0.1:no/x",
        "http://[::1/x",
        "http://127.0.0.1:9/a b\nc",
        "https://\u00fc\u0000.example/x",
    ],
)
def test_nobody_there_is_only_said(where: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    notify.send_notification("broken", tmp_path, where, None)
    assert "quality.webhook: not sent" in caplog.text
    assert where not in caplog.text


def test_a_slow_address_does_not_hold_the_run(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "SECONDS", 0.2)
    server.slow = 3
    notify.send_notification("broken", tmp_path, address(server), str(tmp_path / "no" / "summary.md"))
    assert "quality.webhook" in caplog.text
    assert "was not written" in caplog.text
