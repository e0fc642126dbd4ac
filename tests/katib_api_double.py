"""A small Kubernetes API server on loopback: Experiments, trials, OptimizationJobs, TrainJobs, pods, events and logs, watches,
and faults on demand.

It speaks what the real one speaks: status objects for errors, plain text for kinds that it does not know, a JSON object a
line for watches, 410 for versions that are too old, and 403 for what a role does not permit. In the foreground a deleted
Experiment stays, and its pods come back, as Katib's controllers make them (seen with Katib 0.19).
"""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

ROOT = "/apis/kubeflow.org/v1beta1/namespaces/"
KINDS = "experiments|trials|suggestions"
TRAINER = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/"
TRAINER_KINDS = "trainingruntimes|optimizationjobs|trainjobs"
SERVING = "/apis/serving.kserve.io/v1beta1/namespaces/"
# Messages of a trial's conditions, as Katib 0.19 writes them.
MESSAGES = {
    "Failed": "Trial has failed. Job message: Job has reached the specified backoff limit",
    "MetricsUnavailable": "Metrics are not available",
    "Succeeded": "Trial has succeeded",
}
LABEL = "katib.kubeflow.org/experiment"


class Api:
    """The server's state.

    Attributes:
        namespaces: labels of each.
        objects: by (kind, namespace, name).
        faults: (expression on "METHOD path", what) applied in order, each once; what is a status, a status and a message,
            "drop" or "hang".
        rules: rules of a role, the only ones that permit a request; None permits everything.
        logs: by (pod, container).
        forbidden: expression on "METHOD path" that is answered with 403.
        has_katib: whether it knows Experiments.
        has_optimization_jobs: whether it knows OptimizationJobs.
        asked: every "METHOD path".
        before_answer: called with each of them; controllers of tests work there.
    """

    def __init__(self) -> None:
        self.namespaces = {"team": {"katib.kubeflow.org/metrics-collector-injection": "enabled"}, "bare": {}}
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.faults: list[tuple[str, Any]] = []
        self.forbidden = "$^"
        self.rules: list[dict[str, Any]] | None = None
        self.logs: dict[tuple[str, str], str] = {}
        self.has_katib = self.has_optimization_jobs = True
        self.asked: list[str] = []
        self.version = 100
        self.changed = threading.Condition()
        self.lingers = 0  # reads after the deletion of an Experiment that still find its trials and pods
        self.deleted: set[str] = set()
        self.before_answer: Callable[[str], None] = lambda asked: None
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                api.answer(self, "GET")

            def do_POST(self) -> None:
                api.answer(self, "POST")

            def do_DELETE(self) -> None:
                api.answer(self, "DELETE")

            def do_PUT(self) -> None:
                api.answer(self, "PUT")

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def kubeconfig(self, path: Path, namespace: str | None = "team") -> Path:
        """Writes a kubeconfig with two contexts, `here` (current) and `bare`."""
        cluster = {"name": "double", "cluster": {"server": self.url}}
        contexts = [
            {
                "name": "here",
                "context": {"cluster": "double", "user": "me", **({"namespace": namespace} if namespace else {})},
            },
            {"name": "bare", "context": {"cluster": "double", "user": "me", "namespace": "bare"}},
        ]
        value = {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "contexts": contexts}
        value |= {"users": [{"name": "me", "user": {"token": "t"}}], "current-context": "here"}
        path.write_text(yaml.safe_dump(value))
        return path

    # --- state

    def put(self, kind: str, namespace: str, value: dict[str, Any]) -> None:
        """Stores an object as a controller would."""
        with self.changed:
            self.version += 1
            value.setdefault("metadata", {}).update(namespace=namespace, resourceVersion=str(self.version))
            value["metadata"].setdefault(
                "creationTimestamp", f"2026-01-01T00:{self.version // 60:02d}:{self.version % 60:02d}Z"
            )
            self.objects[kind, namespace, value["metadata"]["name"]] = value
            self.changed.notify_all()

    def trial(
        self, experiment: str, name: str, status: str, value: str | None, namespace: str = "team", **assignments: str
    ) -> None:
        """A trial in some state, with an observation of val_f1."""
        metrics = [{"name": "val_f1", "min": value, "max": value, "latest": value}] if value is not None else None
        conditions = [
            {"type": "Created", "status": "True"},
            {"type": status, "status": "True", "message": MESSAGES.get(status, f"Trial is {status.lower()}")},
        ]
        body = {
            "metadata": {"name": name, "labels": {"katib.kubeflow.org/experiment": experiment}},
            "spec": {"parameterAssignments": [{"name": key, "value": text} for key, text in assignments.items()]},
            "status": {
                "conditions": conditions,
                "startTime": "2026-01-01T00:00:00Z",
                **({"observation": {"metrics": metrics}} if metrics else {}),
            },
        }
        self.put("trials", namespace, body)

    def pod(
        self, experiment: str, name: str, status: dict[str, Any], trial: str = "", namespace: str = "team"
    ) -> dict[str, Any]:
        """A pod of a trial, or of the suggestion service; with Katib's collector, which ends with 255 when the training failed."""
        own = {"katib.kubeflow.org/trial": trial} if trial else {"katib.kubeflow.org/suggestion": experiment}
        body = {
            "metadata": {"name": name, "uid": f"uid-{name}", "labels": {LABEL: experiment, **own}},
            "spec": {
                "containers": [
                    {
                        "name": "training" if trial else "suggestion",
                        "image": "isotrain:0.1.0",
                        "resources": {"requests": {"cpu": "2"}, "limits": {"memory": "400Mi"}},
                    },
                    *([{"name": "metrics-logger-and-collector", "image": "collector"}] if trial else []),
                ]
            },
            "status": status,
        }
        self.put("pods", namespace, body)
        return body

    def event(self, kind: str, name: str, reason: str, message: str, count: int = 1, namespace: str = "team") -> None:
        """A warning about an object."""
        body = {
            "metadata": {"name": f"{name}.{self.version}"},
            "involvedObject": {"kind": kind, "name": name},
            "type": "Warning",
            "reason": reason,
            "message": message,
            "count": count,
            "lastTimestamp": "2026-01-01T01:00:00Z",
        }
        self.put("events", namespace, body)

    def end(self, name: str, condition: str, message: str, best: str | None, namespace: str = "team") -> None:
        """Completes an Experiment."""
        value = self.objects["experiments", namespace, name]
        conditions = [{"type": "Created", "status": "True"}, {"type": "Running", "status": "False"}]
        value["status"] = {"conditions": [*conditions, {"type": condition, "status": "True", "message": message}]}
        if best is not None:
            found = self.objects["trials", namespace, best]
            value["status"]["currentOptimalTrial"] = {
                "bestTrialName": best,
                "parameterAssignments": found["spec"]["parameterAssignments"],
                "observation": found["status"]["observation"],
            }
        self.put("experiments", namespace, value)

    # --- answers

    def answer(self, handler: BaseHTTPRequestHandler, method: str) -> None:
        split = urlsplit(handler.path)
        path, query = split.path, {key: values[0] for key, values in parse_qs(split.query).items()}
        length = int(handler.headers.get("Content-Length") or 0)
        body = json.loads(handler.rfile.read(length)) if length else None
        asked = f"{method} {path}" + (" watch" if query.get("watch") else "")
        self.asked.append(asked)
        self.before_answer(asked)
        for index, (expression, what) in enumerate(self.faults):
            if re.search(expression, asked):
                del self.faults[index]
                if what == "drop":
                    handler.close_connection = True
                    handler.connection.close()
                    return
                if what == "hang":
                    time.sleep(60)
                    return
                if what == "lost":  # it is done, and nobody hears of it
                    self._handle(method, path, query, body)
                    handler.close_connection = True
                    handler.connection.close()
                    return
                code, message = what if isinstance(what, tuple) else (int(what), "injected")
                return self._fail(handler, code, "InternalError", message)
        if re.search(self.forbidden, asked) or not self._permitted(method, path, query):
            verb, group, resource = self._verb(method, path, query)
            message = f'{resource} is forbidden: User "me" cannot {verb} resource "{resource}" in API group "{group}"'
            return self._fail(handler, 403, "Forbidden", f'{message} in the namespace "team"')
        if text := re.fullmatch(r"/api/v1/namespaces/([^/]+)/pods/([^/]+)/log", path):
            if ("pods", text[1], text[2]) not in self.objects:
                return self._fail(handler, 404, "NotFound", f'pods "{text[2]}" not found')
            return self._send(handler, 200, self.logs.get((text[2], query.get("container", "")), ""))
        if query.get("watch") == "True" or query.get("watch") == "true":
            return self._watch(handler, path, query)
        code, found = self._handle(method, path, query, body)
        if code >= 400 and isinstance(found, str):
            return self._fail(handler, code, {404: "NotFound", 409: "AlreadyExists"}.get(code, "Invalid"), found)
        self._send(handler, code, found)

    @staticmethod
    def _verb(method: str, path: str, query: dict[str, str]) -> tuple[str, str, str]:
        """Verb, API group and resource of a request, as RBAC names them."""
        found = re.fullmatch(
            r"/apis?/(?:([^/]+\.[^/]+)/)?v[^/]+/namespaces/([^/]+)(?:/([^/]+)(?:/([^/]+)(?:/([^/]+))?)?)?", path
        )
        group, _, plural, name, part = found.groups() if found else ("", "", "", "", "")
        verb = {"POST": "create", "DELETE": "delete", "PUT": "update"}.get(
            method, "get" if name or not plural else "list"
        )
        verb = "watch" if query.get("watch") else verb
        return verb, group or "", (plural or "namespaces") + (f"/{part}" if part else "")

    def _permitted(self, method: str, path: str, query: dict[str, str]) -> bool:
        verb, group, resource = self._verb(method, path, query)
        return self.rules is None or any(
            group in rule["apiGroups"] and resource in rule["resources"] and verb in rule["verbs"]
            for rule in self.rules
        )

    def _handle(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        if found := re.fullmatch(r"/api/v1/namespaces/([^/]+)", path):
            if found[1] not in self.namespaces:
                return 404, f'namespaces "{found[1]}" not found'
            return 200, {"kind": "Namespace", "metadata": {"name": found[1], "labels": self.namespaces[found[1]]}}
        found = re.fullmatch(rf"{re.escape(ROOT)}([^/]+)/({KINDS})(?:/([^/]+))?", path)
        if (found and not self.has_katib) or ("/optimizationjobs" in path and not self.has_optimization_jobs):
            return 404, None
        found = found or re.fullmatch(
            rf"(?:/api/v1/namespaces/|{TRAINER}|{SERVING})([^/]+)/(pods|events|{TRAINER_KINDS}|inferenceservices)(?:/([^/]+))?",
            path,
        )
        if not found:
            return 404, None
        namespace, kind, name = found.groups()
        key = (kind, namespace, name or "")
        if method == "GET" and self.deleted:
            self._collect_garbage()
        if method == "GET" and name:
            return (200, self.objects[key]) if key in self.objects else (404, f'{kind}.kubeflow.org "{name}" not found')
        if method == "GET":
            return 200, {
                "kind": "List",
                "metadata": {"resourceVersion": str(self.version)},
                "items": self._selected(kind, namespace, query),
            }
        if method == "POST":
            name = body["metadata"]["name"]
            if (kind, namespace, name) in self.objects:
                return 409, f'{kind}.kubeflow.org "{name}" already exists'
            if kind == "experiments":
                body["spec"].setdefault("resumePolicy", "Never")  # as the webhook adds its defaults
            if query.get("dryRun") == "All":
                return 201, body
            self.put(kind, namespace, body)
            return 201, body
        if method == "PUT":
            if key not in self.objects:
                return 404, f'{kind} "{name}" not found'
            if body["metadata"].get("resourceVersion") not in (None, self.objects[key]["metadata"]["resourceVersion"]):
                return (
                    409,
                    "the object has been modified; please apply your changes to the latest version and try again",
                )
            self.put(kind, namespace, {**body, "status": self.objects[key].get("status", {})})
            return 200, body
        if method == "DELETE":
            if key not in self.objects:
                return 404, f'{kind}.kubeflow.org "{name}" not found'
            self.deleted.add(name)
            if (query.get("propagationPolicy") or (body or {}).get("propagationPolicy")) == "Foreground":
                self.objects[key]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            else:
                del self.objects[key]
            return 200, {"kind": "Status", "status": "Success"}
        return 405, "method not allowed"

    def _collect_garbage(self) -> None:
        """Deletes what deleted Experiments own, after `lingers` reads; never while one of them waits for it."""
        searches = ("experiments", "optimizationjobs")
        if any(kind in searches and name in self.deleted for kind, _, name in self.objects):
            return
        if self.lingers:
            self.lingers -= 1
            return
        for key, value in list(self.objects.items()):
            owners = [row["name"] for row in value["metadata"].get("ownerReferences", [])]
            owners.append((value["metadata"].get("labels") or {}).get(LABEL))
            if self.deleted.intersection(owners):
                del self.objects[key]

    def _selected(self, kind: str, namespace: str, query: dict[str, str]) -> list[dict[str, Any]]:
        label, sign, wanted = query.get("labelSelector", "").partition("=")
        return [
            value
            for (kind_, namespace_, _), value in list(self.objects.items())
            if (kind_, namespace_) == (kind, namespace)
            and (
                not label
                or (value["metadata"].get("labels") or {}).get(label)
                in ([wanted] if sign else value["metadata"].get("labels", {}).values())
            )
        ]

    def _watch(self, handler: BaseHTTPRequestHandler, path: str, query: dict[str, str]) -> None:
        found = re.fullmatch(rf"(?:{re.escape(ROOT)}|{TRAINER})([^/]+)/({KINDS}|{TRAINER_KINDS})", path)
        since = int(query.get("resourceVersion") or 0)
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        try:
            for line in self._events(found[2] if found else "", found[1] if found else "", query, since):
                data = (json.dumps(line) + "\n").encode()
                handler.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                handler.wfile.flush()
            handler.wfile.write(b"0\r\n\r\n")
        except OSError:
            pass

    def _events(self, kind: str, namespace: str, query: dict[str, str], since: int) -> Iterator[dict[str, Any]]:
        if since < 0:
            yield {
                "type": "ERROR",
                "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"},
            }
            return
        end = time.monotonic() + float(query.get("timeoutSeconds") or 5)
        while (left := end - time.monotonic()) > 0:
            with self.changed:
                new = [
                    v for v in self._selected(kind, namespace, query) if int(v["metadata"]["resourceVersion"]) > since
                ]
                if not new:
                    self.changed.wait(min(left, 0.5))
            for value in sorted(new, key=lambda each: int(each["metadata"]["resourceVersion"])):
                since = int(value["metadata"]["resourceVersion"])
                yield {"type": "MODIFIED", "object": value}

    def _fail(self, handler: BaseHTTPRequestHandler, code: int, reason: str, message: str | None) -> None:
        status = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code,
        }
        self._send(handler, code, status)

    @staticmethod
    def _send(handler: BaseHTTPRequestHandler, code: int, value: Any) -> None:
        plain = value is None or isinstance(value, str)
        data = (
            (value or "404 page not found\n" if code >= 400 else value or "").encode()
            if plain
            else json.dumps(value).encode()
        )
        handler.send_response(code)
        handler.send_header("Content-Type", "text/plain" if plain else "application/json")
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)
