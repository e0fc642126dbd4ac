"""KServe's controller in Standard mode, on the API double: what the status and the pods of an InferenceService go through.

Conditions, reasons and messages are those of KServe 0.20, as seen on a cluster, and of a Deployment. While a
Deployment replaces pods, its condition Available stays true, and with it Ready of the InferenceService, although servers of
the version before still answer.
"""

import json
import re
from typing import Any
from zlib import crc32

from tests.katib_api_double import Api

KIND, ANNOTATION, LABEL = "inferenceservices", "isotrain/model-version", "serving.kserve.io/inferenceservice"
UNAVAILABLE = "Deployment does not have minimum availability."
CRASH = "isotrain: run=/mnt/models: neither a run nor a model folder (there is no config.json)"
LOG = f"Started server process [1]\nShutting down\nFinished server process [1]\n{CRASH}\n"
_LOOK = re.compile(rf"GET .*/{KIND}/([^/]+)$")


class KServe:
    """The controller: each look at an InferenceService is a step further.

    Attributes:
        url: address of each service.
        broken: versions whose server ends at its start.
        stuck: versions, or images, whose server never gets ready.
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
        spec = self.api.objects[KIND, "team", name]["spec"]
        predictor = spec["predictor"]
        template = f"{version}-{crc32(json.dumps(predictor).encode())}"  # any change makes new pods
        looks = self._looks[name, template] = self._looks.get((name, template), 0) + 1
        for other in [key for key in self._looks if key[0] == name and key[1] != template]:
            del self._looks[other]  # what comes back begins anew
        pods = [
            key
            for key, pod in self.api.objects.items()
            if key[0] == "pods" and pod["metadata"]["labels"].get(LABEL) == name
        ]
        canaries = {f"{template}-{number}": entry["predictor"] for number, entry in enumerate(spec.get("canary", []))}
        old = [key for key in pods if key[2].removeprefix(f"{name}-predictor-") not in {template, *canaries}]
        if looks < 3:
            return  # nothing has happened yet: the status is still that of before
        can_be = version not in self.broken | self.stuck and predictor["containers"][0]["image"] not in self.stuck
        self._pod(name, template, predictor, looks, can_be and looks > 4)
        for key, canary in canaries.items():
            merged = {**predictor, **canary, "annotations": {**predictor["annotations"], **canary["annotations"]}}
            self._pod(name, key, merged, looks, is_ready=True)
        if can_be and looks > 5:
            for key in old:
                self.api.objects.pop(key, None)
        self._status(name, (can_be and looks > 4) or bool(old), version, looks)

    def _pod(self, name: str, template: str, predictor: dict[str, Any], looks: int, is_ready: bool) -> None:
        version = predictor["annotations"][ANNOTATION]
        state: dict[str, Any] = {
            "name": "kserve-container",
            "ready": is_ready,
            "restartCount": 0,
            "state": {"running": {}},
        }
        if version in self.broken:
            ended = {"exitCode": 2, "reason": "Error", "message": LOG}
            state |= {
                "restartCount": looks - 3,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": ended},
            }
            self.api.logs[f"{name}-predictor-{template}", "kserve-container"] = LOG
        body = {
            "metadata": {
                "name": f"{name}-predictor-{template}",
                "labels": {LABEL: name},
                "annotations": predictor["annotations"],
            },
            "spec": {"containers": [{"name": "kserve-container", "image": predictor["containers"][0]["image"]}]},
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
        # Also when a server ends again and again: KServe watches the Deployment and the pods' init containers.
        model = {"transitionStatus": "UpToDate" if is_ready else "InProgress"}
        value["status"] = {
            "deploymentMode": "Standard",
            "conditions": [*conditions, {"type": "IngressReady", "status": str(is_ready)}],
            "modelStatus": model,
        }
        if is_ready:
            host = f"http://{name}-team.example.com"
            value["status"] |= {"url": host, "address": {"url": self.url}}
