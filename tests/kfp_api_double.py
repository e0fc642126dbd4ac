"""A small Kubeflow Pipelines API (v2beta1) on loopback: pipelines, versions, runs that come to an end, schedules, faults.

KFP's own generated client reads every answer, so that a field of the wrong name or type shows at once. As the real one: a
version's name is taken once, an upload of a new pipeline names its first version after the pipeline, errors carry `code`
and `message`.
"""

import json
import re
import threading
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

WHEN = "2026-01-01T00:00:0{}Z"


class Api:
    """The server's state.

    Attributes:
        pipelines, versions, experiments, runs, schedules: by id.
        course: states that a run goes through, one for each time that it is asked for; the last stays.
        faults: (expression on "METHOD path", status or "drop"), each used once, in order.
        token: what Authorization must carry; None: anything.
        asked: every "METHOD path".
    """

    def __init__(self) -> None:
        self.pipelines: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, dict[str, Any]] = {}
        self.experiments: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.schedules: dict[str, dict[str, Any]] = {}
        self.course = ["PENDING", "RUNNING", "SUCCEEDED"]
        self.faults: list[tuple[str, Any]] = []
        self.token: str | None = None
        self.asked: list[str] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                api.answer(self, "GET")

            def do_POST(self) -> None:
                api.answer(self, "POST")

            def do_DELETE(self) -> None:
                api.answer(self, "DELETE")

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stops answering."""
        self.server.shutdown()
        self.server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler, method: str) -> None:
        """Answers one request."""
        address = urlsplit(handler.path)
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        self.asked.append(line := f"{method} {address.path}")
        for fault in list(self.faults):
            if re.search(fault[0], line):
                self.faults.remove(fault)
                if fault[1] == "drop":
                    handler.connection.close()
                    return
                self._send(handler, fault[1], {"code": 13, "message": "a fault that was asked for"})
                return
        if self.token is not None and handler.headers.get("Authorization") != f"Bearer {self.token}":
            self._send(handler, 401, {"code": 16, "message": "Request header error: there is no user identity header."})
            return
        query = {name: values[-1] for name, values in parse_qs(address.query).items()}
        code, found = self._found(method, unquote(address.path), query, body, handler.headers.get("Content-Type", ""))
        self._send(handler, code, found)

    def _send(self, handler: BaseHTTPRequestHandler, code: int, value: Any) -> None:
        text = json.dumps(value).encode()
        handler.send_response(code)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(text)))
        handler.end_headers()
        handler.wfile.write(text)

    def _found(self, method: str, path: str, query: dict[str, str], body: bytes, kind: str) -> tuple[int, Any]:
        path = path.removeprefix("/apis/v2beta1/")
        if path == "healthz":
            return 200, {"multi_user": False}
        if path == "pipelines/upload_version":
            return self._upload(query, body, kind)
        given = json.loads(body) if body else {}
        for name, store, key, plural in (
            ("pipelines", self.pipelines, "pipeline_id", "pipelines"),
            ("experiments", self.experiments, "experiment_id", "experiments"),
            ("runs", self.runs, "run_id", "runs"),
            ("recurringruns", self.schedules, "recurring_run_id", "recurringRuns"),
        ):
            if path == name and method == "GET":
                return 200, {plural: self._chosen(store, query), "total_size": len(store)}
            if path == name and method == "POST":
                return self._made(store, key, name, given)
            if found := re.fullmatch(rf"{name}/([^/:]+)(:terminate)?", path):
                if found[1] not in store:
                    return 404, {"code": 5, "message": f"{name} {found[1]} not found"}
                if method == "DELETE":
                    return 200, store.pop(found[1]) and {}
                if found[2]:
                    store[found[1]]["course"] = ["CANCELED"]
                    return 200, {}
                return 200, self._shown(store[found[1]])
        if found := re.fullmatch(r"pipelines/([^/]+)/versions", path):
            of = [{**each, "text": None} for each in self.versions.values() if each["pipeline_id"] == found[1]]
            return 200, {"pipeline_versions": of, "total_size": len(of)}
        if found := re.fullmatch(r"pipelines/([^/]+)/versions/([^/]+)", path):
            return 200, self.versions[found[2]]
        return 404, {"code": 5, "message": f"Not Found: {path}"}

    def _chosen(self, store: dict[str, dict[str, Any]], query: dict[str, str]) -> list[Any]:
        wanted = json.loads(query.get("filter", "{}")).get("predicates", [])
        found = [self._shown(each, False) for each in store.values()]
        for each in wanted:
            value = each.get("stringValue", each.get("string_value"))
            found = [one for one in found if one.get(each["key"]) == value]
        if "experiment_id" in query:
            found = [one for one in found if one.get("experiment_id") == query["experiment_id"]]
        return found

    def _made(self, store: dict[str, dict[str, Any]], key: str, name: str, given: dict[str, Any]) -> tuple[int, Any]:
        if name in ("pipelines", "experiments") and any(
            each["display_name"] == given["display_name"] for each in store.values()
        ):
            return 409, {"code": 6, "message": f"Already exist: {given['display_name']}"}
        identity = f"{name}-{len(store) + 1}"
        store[identity] = {**given, key: identity, "created_at": WHEN.format(0)}
        if name == "runs":
            store[identity] |= {"course": list(self.course)}
        return 200, self._shown(store[identity], False)

    def _upload(self, query: dict[str, str], body: bytes, kind: str) -> tuple[int, Any]:
        of = query["pipelineid"]
        if any((each["pipeline_id"], each["display_name"]) == (of, query["name"]) for each in self.versions.values()):
            return 409, {"code": 6, "message": f"Already exist: version {query['name']}"}
        message = BytesParser().parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
        text = next(part.get_payload(decode=True) for part in message.get_payload() if part.get_filename())
        identity = f"version-{len(self.versions) + 1}"
        found = {"pipeline_id": of, "pipeline_version_id": identity, "display_name": query["name"]}
        spec, *platform = yaml.safe_load_all(text)
        told = {"pipeline_spec": spec, "platform_spec": platform[0]} if platform else spec
        self.versions[identity] = {**found, "created_at": WHEN.format(0), "text": text.decode(), "pipeline_spec": told}
        return 200, found

    def _shown(self, found: dict[str, Any], asked: bool = True) -> dict[str, Any]:
        """An object as it is answered; a run goes one state further."""
        shown = {name: value for name, value in found.items() if name not in ("course", "text")}
        if "course" in found:
            shown["state"] = found["course"][0]
            if asked and len(found["course"]) > 1:
                found["course"].pop(0)
            state = shown["state"]
            task = {"display_name": "train", "state": state, "start_time": WHEN.format(1), "end_time": WHEN.format(8)}
            if state == "FAILED":
                task["error"] = {"code": 1, "message": "exit code 3 | training diverged"}
            done = {
                "display_name": "data",
                "state": "SUCCEEDED",
                "start_time": WHEN.format(0),
                "end_time": WHEN.format(1),
            }
            root = {"display_name": "root", "state": state, "start_time": WHEN.format(0)}
            shown["run_details"] = {"task_details": [root, task, done]}
        return shown
