"""KServe's controller in Standard mode, on the API double: what the status and the pods of an InferenceService go through.

Conditions, reasons and messages are those of KServe (PropagateRawStatus, PropagateModelStatus) and of a Deployment. While a
Deployment replaces pods, its condition Available stays true, and with it Ready of the InferenceService, although servers of
the version before still answer.
"""

import re
from typing import Any

from tests.katib_api_double import Api

KIND, ANNOTATION, LABEL = "inferenceservices", "isotrain/model-version", "serving.kserve.io/inferenceservice"
UNAVAILABLE = "Deployment does not have minimum availability."
CRASH = "isotrain: run=/mnt/models: neither a run nor a model folder"
_LOOK = re.compile(rf"GET .*/{KIND}/([^/]+)$")


class KServe:
    """The controller: each look at an InferenceService is a step further.

    Attributes:
        url: address of each service.
        broken: versions whose server ends at its start.
        stuck: versions whose server never gets ready.
    """

    def __init__(self, api: Api, url: str) -> None:
        self.api, self.url = api, url
        self.broken: set[str] = set()
        self.stuck: set[str] = set()
        self._looks: dict[tuple[str, str], int] = {}
        api.before_answer = self._look

    def version(self, name: str) -> str | None:
        """The version that a service asks for; None if there is no service."""
        value = self.api.objects.get((KIND, "team", name))
        return value["spec"]["predictor"]["annotations"][ANNOTATION] if value else None

    def pods(self, name: str) -> list[str]:
        """Versions of the pods."""
        return [
            value["metadata"]["annotations"][ANNOTATION]
            for (kind, _, _), value in self.api.objects.items()
            if kind == "pods" and value["metadata"]["labels"].get(LABEL) == name
        ]

    def _look(self, asked: str) -> None:
        found = _LOOK.fullmatch(asked)
        name = found[1] if found else ""
        version = self.version(name) if found else None
        if version is None:
            for key in [key for key in self.api.objects if key[0] == "pods"] if found else []:
                del self.api.objects[key]  # collected after their owner
            return
        looks = self._looks[name, version] = self._looks.get((name, version), 0) + 1
        for other in [key for key in self._looks if key[0] == name and key[1] != version]:
            del self._looks[other]  # a version that comes back begins anew
        old = [pod for pod in self.pods(name) if pod != version]
        if looks < 3:
            return  # nothing has happened yet: the status is still that of before
        self._pod(name, version, looks)
        is_ready = version not in self.broken | self.stuck and looks > 4
        if is_ready and looks > 5:
            for pod in old:
                self.api.objects.pop(("pods", "team", f"{name}-predictor-{pod}"), None)
        self._status(name, is_ready or bool(old), version, looks)

    def _pod(self, name: str, version: str, looks: int) -> None:
        is_ready = version not in self.broken | self.stuck and looks > 4
        state: dict[str, Any] = {
            "name": "kserve-container",
            "ready": is_ready,
            "restartCount": 0,
            "state": {"running": {}},
        }
        if version in self.broken:
            ended = {"exitCode": 2, "reason": "Error", "message": CRASH}
            state |= {
                "restartCount": looks - 3,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": ended},
            }
            self.api.logs[f"{name}-predictor-{version}", "kserve-container"] = f"{CRASH}\n"
        body = {
            "metadata": {
                "name": f"{name}-predictor-{version}",
                "labels": {LABEL: name},
                "annotations": {ANNOTATION: version},
            },
            "spec": {"containers": [{"name": "kserve-container", "image": "isotrain"}]},
            "status": {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": str(is_ready)}],
                "containerStatuses": [state],
            },
        }
        self.api.put("pods", "team", body)

    def _status(self, name: str, is_ready: bool, version: str, looks: int) -> None:
        value = self.api.objects[KIND, "team", name]
        reason = "MinimumReplicasAvailable" if is_ready else "MinimumReplicasUnavailable"
        row = {"status": str(is_ready), "reason": reason, "message": "" if is_ready else UNAVAILABLE}
        conditions = [{**row, "type": kind} for kind in ("PredictorReady", "Ready")]
        value["status"] = {
            "deploymentMode": "Standard",
            "conditions": [*conditions, {"type": "IngressReady", "status": str(is_ready)}],
            "modelStatus": {"transitionStatus": "UpToDate" if is_ready else "InProgress"},
        }
        if version in self.broken and not is_ready:
            failure = {"reason": "ModelLoadFailed", "message": CRASH, "exitCode": 2}
            value["status"]["modelStatus"] = {"transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": failure}
        if is_ready:
            host = f"http://{name}-team.example.com"
            value["status"] |= {"url": host, "address": {"url": self.url}}
