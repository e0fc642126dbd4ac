"""A small Kubeflow Pipelines API on loopback: pipelines, versions, runs that come to an end, schedules, faults.

KFP's own generated client reads every answer, so that a field of the wrong name or type shows at once. It answers as KFP
master of August 2026 did on a real cluster: a version's name is taken once, an upload of a new pipeline names its first
version after the pipeline, errors carry `code` and `message`; tasks are Argo's nodes and have no errors; a run has no state
right after it was created, and its own end before that of its tasks; a terminated run is CANCELING, then FAILED, and cannot be
terminated twice; a schedule takes the Workflows of its runs with it.
"""

import base64
import gzip
import json
import re
import threading
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from tests.kfp_nodes_double import TIME, WORKFLOW, add_default_retries, make_nodes, make_tasks, make_workflow, node_id

WHEN = "2026-01-01T00:0{}:00Z"
ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
ORDER = (
    "data", "plan", "quality", "gate", "drift", "gate-2", "tune", "train", "evaluate", "explain", "gate-3", "benchmark",
    "gate-4", "register",
)  # fmt: skip


class Api:
    """The server's state.

    Attributes:
        pipelines, versions, experiments, runs, schedules: by id.
        course: states that a run goes through, one for each time that it is asked for; the last stays.
        retried: the states after RUNNING that each retry of a run goes through.
        default_retries: whether the workflow defaults have a retryStrategy, as in the manifests since 2.17.
        step: key of the step that runs, fails or is pending.
        cached: keys of steps that are taken from the cache.
        message: Argo's message of the pod that fails or is pending.
        logs: log of the container of a step, by its key.
        compressed: key of the step that ran when Argo compressed the Workflow: KFP's tasks stay those of that moment,
            and it finds no logs.
        v1: whether the API of v1beta1 is served.
        late: how often the tasks of a run that has ended are those from before its end.
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
        self.course = ["", "RUNNING", "SUCCEEDED"]
        self.retried: list[list[str]] = []
        self.default_retries = False
        self.step = "train"
        self.cached: tuple[str, ...] = ()
        self.message = "Error (exit code 1)"
        self.logs: dict[str, str] = {}
        self.compressed = ""
        self.v1 = True
        self.late = 1
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

    def fire(self, schedule: str) -> str:
        """A schedule starts a run of its own; returns the run's id."""
        of = {name: self.schedules[schedule][name] for name in ("experiment_id", "pipeline_version_reference")}
        run = self._made(self.runs, "run_id", "runs", {**of, "display_name": "scheduled", "recurring_run_id": schedule})
        return str(run[1]["run_id"])

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
                text = "a fault that was asked for"
                upload = {"error_message": text, "error_details": text}  # the handlers of uploads have other keys
                self._send(handler, fault[1], upload if "upload" in line else {"code": 13, "message": text})
                return
        if self.token is not None and handler.headers.get("Authorization") != f"Bearer {self.token}":
            self._send(handler, 401, {"code": 16, "message": "Request header error: there is no user identity header."})
            return
        query = {name: values[-1] for name, values in parse_qs(address.query).items()}
        code, found = self._found(method, unquote(address.path), query, body, handler.headers.get("Content-Type", ""))
        self._send(handler, code, found)

    def _send(self, handler: BaseHTTPRequestHandler, code: int, value: Any) -> None:
        text = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        handler.send_response(code)
        handler.send_header("Content-Type", "text/plain" if isinstance(value, str) else "application/json")
        handler.send_header("Content-Length", str(len(text)))
        handler.end_headers()
        handler.wfile.write(text)

    def _found(self, method: str, path: str, query: dict[str, str], body: bytes, kind: str) -> tuple[int, Any]:
        if found := re.fullmatch(r"/apis/v1alpha1/runs/([^/]+)/nodes/([^/]+)/log", path):
            return self._log(found[1], found[2])
        if (found := re.fullmatch(r"/apis/v1beta1/runs/([^/]+)", path)) and self.v1:
            if found[1] not in self.runs:
                return 404, {"code": 5, "message": f"Run {found[1]} not found"}
            return 200, {"run": {"id": found[1]}, "pipeline_runtime": self._runtime(self.runs[found[1]])}
        if not path.startswith("/apis/v2beta1/"):
            return 404, {"code": 5, "message": "Not Found"}
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
            if found := re.fullmatch(rf"{name}/([^/:]+)(:\w+)?", path):
                if found[1] not in store:
                    return 404, {"code": 5, "message": f"{name} {found[1]} not found"}
                if method == "DELETE":
                    self._delete(found[1], store)
                    return 200, {}
                if found[2] == ":terminate":
                    return self._terminate(found[1])
                if found[2] == ":retry":
                    return self._retry(found[1])
                if found[2] in (":enable", ":disable"):
                    store[found[1]]["status"] = found[2][1:].upper() + "D"
                    return 200, {}
                return 200, self._shown(store[found[1]])
        if found := re.fullmatch(r"pipelines/([^/]+)/versions", path):
            of = [{**each, "text": None} for each in self.versions.values() if each["pipeline_id"] == found[1]]
            return 200, {"pipeline_versions": of, "total_size": len(of)}
        if found := re.fullmatch(r"pipelines/([^/]+)/versions/([^/]+)", path):
            if found[2] not in self.versions:
                return 404, {"code": 5, "message": f"PipelineVersion {found[2]} not found"}
            return 200, {**self.versions[found[2]], "text": None}
        return 404, {"code": 5, "message": f"Not Found: {path}"}

    def _delete(self, identity: str, store: dict[str, dict[str, Any]]) -> None:
        """A schedule owns the Workflows of its runs: nothing ends those that are under way."""
        store.pop(identity)
        for run in self.runs.values():
            if store is self.schedules and run.get("recurring_run_id") == identity:
                run["gone"] = True
                if run["course"][0] not in ENDED:
                    run["course"] = ["RUNNING"]

    def _terminate(self, identity: str) -> tuple[int, Any]:
        run = self.runs[identity]
        state = run["course"][0]
        failed = f"Failed to terminate a run: Failed to terminate run {identity}"
        if state in ENDED or state == "CANCELING":
            return 400, {
                "code": 3,
                "message": f"{failed}: Invalid input error: Failed to terminate a run {identity}. Row not found",
            }
        if run.get("gone"):
            run["course"] = ["CANCELING"]
            return 500, {"code": 13, "message": f"{failed} due to error terminating its workflow: workflows.argoproj.io \"{WORKFLOW}\" not found"}  # fmt: skip
        run["course"] = ["CANCELING", "FAILED"]
        self._cancel(run)
        return 200, {}

    def _cancel(self, run: dict[str, Any]) -> None:
        run |= {"terminated": True, "state_history": [{"update_time": TIME.format(0, 5), "state": "CANCELING"}]}

    def _retry(self, identity: str) -> tuple[int, Any]:
        """A run that failed is RUNNING again with the answer, and its nodes that succeeded stay."""
        run = self.runs[identity]
        if run["course"][0] != "FAILED":
            return 400, {"code": 3, "message": f"Retry run failed: Failed to retry run {identity} as it does not have a failed or error status"}  # fmt: skip
        run |= {"course": ["RUNNING", *self.retried.pop(0)], "before": None, "late": self.late}
        return 200, {}

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
        while identity in store:
            identity += "x"
        store[identity] = {**given, key: identity, "created_at": WHEN.format(0)}
        if name == "runs":
            store[identity] |= {"course": list(self.course), "late": self.late, "step": self.step}
        if name == "recurringruns":
            store[identity] |= {"status": "ENABLED"}
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
        if found.get("course", [""])[0] == "CANCELING" and not found.get("terminated"):
            self._cancel(found)
        internal = ("course", "text", "late", "step", "gone", "terminated", "before")
        shown = {name: value for name, value in found.items() if name not in internal}
        if "course" not in found:
            return shown
        state = found["course"][0]
        if state:
            shown["state"] = state
        if asked and len(found["course"]) > 1:
            found["course"].pop(0)
        tasks = state
        if state in ENDED and asked and found["late"] and found.get("before"):
            found["late"] -= 1
            tasks = found["before"]
        elif asked and state not in ENDED:
            found["before"] = state
        if self.compressed and tasks in ENDED:
            found, tasks = {**found, "step": self.compressed}, "RUNNING"
        if details := make_tasks(found["run_id"], self._nodes(found, tasks)):
            shown["run_details"] = {"task_details": details}
        return shown

    def _nodes(self, run: dict[str, Any], state: str) -> list[dict[str, Any]]:
        nodes = self._plain_nodes(run, state)
        return add_default_retries(nodes) if self.default_retries else nodes

    def _plain_nodes(self, run: dict[str, Any], state: str) -> list[dict[str, Any]]:
        if state not in ("RUNNING", "CANCELING", *ENDED):
            return []
        if run["step"] == "root":  # nothing has begun but the driver of the pipeline
            spec = self.versions[run["pipeline_version_reference"]["pipeline_version_id"]]["pipeline_spec"]
            return make_nodes(spec.get("pipeline_spec", spec), {"root": "Pending"}, "Running", self.message)
        at = ORDER.index(run["step"])
        phases = {
            key: "Cached" if key in self.cached else "Succeeded"
            for key in ORDER[: at if state != "SUCCEEDED" else None]
        }
        if state in ("RUNNING", "CANCELING"):
            phases[run["step"]] = "Running"
        elif state != "SUCCEEDED":
            phases |= {run["step"]: "Failed", **dict.fromkeys(ORDER[at + 1 :], "Omitted")}
        if state in ENDED and not run.get("terminated"):
            phases["finish"] = "Succeeded"
        version = self.versions[run["pipeline_version_reference"]["pipeline_version_id"]]["pipeline_spec"]
        phase = {"SUCCEEDED": "Succeeded", "RUNNING": "Running", "CANCELING": "Running"}.get(state, "Failed")
        return make_nodes(version.get("pipeline_spec", version), phases, phase, self.message)

    def _runtime(self, run: dict[str, Any]) -> dict[str, Any]:
        """What v1beta1 tells of a run: the Workflow, which is always of the state of the run."""
        state = run["course"][0]
        if not state:
            return {}
        workflow = make_workflow(self._nodes(run, state), state, run.get("terminated", False), "kubeflow")
        if self.compressed and state in ENDED:
            nodes = json.dumps(workflow["status"].pop("nodes")).encode()
            workflow["status"]["compressedNodes"] = base64.b64encode(gzip.compress(nodes)).decode()
        return {"workflow_manifest": json.dumps(workflow)}

    def _log(self, run: str, pod: str) -> tuple[int, Any]:
        """The log of a pod; an error has the status 200, too, because the header is sent before the log is read."""
        state = self.runs[run]["course"][0] if run in self.runs else ""
        for node in self._nodes(self.runs[run], state) if state and not (self.compressed and state in ENDED) else []:
            of = re.search(r"\.([^.(]+)(?:\(0\))?\.executor\(\d+\)$", node["name"])
            names = (node["id"], f"{WORKFLOW}-{node['templateName']}-{node_id(node['name']).rpartition('-')[2]}")
            if of and pod in names and of[1] in self.logs:
                return 200, self.logs[of[1]]
        message = f"Failed to read logs for run {run}: InternalServerError: Failed to read logs from pod {pod}"
        return 200, json.dumps({"error_message": message, "error_details": message})
