"""The admission policies of katib/cluster/admission: their CEL, evaluated by the rules of the API server for the requests of
tests/admission_cases.py, and what their files name. tests/cluster asks a real API server the same."""

import copy
import functools
import re
import warnings
from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from tests.admission_cases import (
    ADMISSION,
    LIMITS,
    RESOURCES,
    ROOT,
    Case,
    Object,
    cases,
    container,
    experiment,
    job,
    owned,
    pod,
)
from tests.test_katib_manifests import render

POLICIES: dict[str, Object] = {
    value["metadata"]["name"]: value
    for value in yaml.safe_load_all((ADMISSION / "policy.yaml").read_text(encoding="utf-8"))
    if value["kind"] == "ValidatingAdmissionPolicy"
}
BINDINGS: dict[str, Object] = {
    value["spec"]["policyName"]: value["spec"]
    for value in yaml.safe_load_all((ADMISSION / "policy.yaml").read_text(encoding="utf-8"))
    if value["kind"] == "ValidatingAdmissionPolicyBinding"
}
CASES = {case.name: case for case in cases()}


@functools.cache
def program(expression: str) -> Any:
    """A compiled CEL expression with the extensions that the API server has."""
    try:
        from cel_expr_python import cel
        from cel_expr_python.ext import ext_optional, ext_strings
    except ImportError:
        warnings.warn("cel-expr-python is not there: the policies' CEL is not evaluated", stacklevel=1)
        pytest.skip("no cel-expr-python")
    names = ("object", "oldObject", "request", "namespaceObject", "variables")
    extensions = [ext_optional.ExtOptional(), ext_strings.ExtStrings()]
    return cel.NewEnv(variables=dict.fromkeys(names, cel.Type.DYN), extensions=extensions).compile(expression)


def evaluate(expression: str, data: Object) -> Any:
    """The value of an expression.

    Raises:
        ValueError: the expression fails.
    """
    compiled, value = program(expression), None
    from cel_expr_python import cel

    value = compiled.eval(data=data)
    if value.type() == cel.Type.ERROR:
        raise ValueError(f"{expression}: {value.plain_value()}")
    return value.plain_value()


def matches(policy: Object, group: str, resource: str, operation: str) -> bool:
    """Whether a policy's resource rules match a request."""
    return any(
        {group, "*"} & set(rule["apiGroups"])
        and {resource, "*"} & set(rule["resources"])
        and operation in rule["operations"]
        for rule in policy["spec"]["matchConstraints"]["resourceRules"]
    )


def review(value: Object, old: Object | None = None, limits: Mapping[str, str] = LIMITS) -> list[str]:
    """The messages with which the policies refuse to create a value, or to update the old one."""
    group, resource = RESOURCES[value["kind"]]
    operation = "UPDATE" if old else "CREATE"
    kind = {"group": group, "version": value["apiVersion"].rpartition("/")[2], "kind": value["kind"]}
    request = {"operation": operation, "kind": kind, "resource": {"group": group, "resource": resource}}
    messages = []
    for policy in POLICIES.values():
        spec = policy["spec"]
        if not matches(policy, group, resource, operation):
            continue
        data: Object = {"object": value, "oldObject": old, "request": request, "variables": {}}
        data["namespaceObject"] = {"metadata": {"annotations": limits} if limits else {}}
        try:
            if not all(evaluate(condition["expression"], data) for condition in spec.get("matchConditions", [])):
                continue
            failures = {}
            for variable in spec.get("variables", []):  # the API server evaluates them when they are used
                try:
                    data["variables"][variable["name"]] = evaluate(variable["expression"], data)
                except ValueError as error:
                    failures[variable["name"]] = error
            for rule in spec["validations"]:
                for variable, error in failures.items():
                    if f"variables.{variable}" in rule["expression"]:
                        raise error
                if evaluate(rule["expression"], data) is not True:
                    text = rule.get("messageExpression")
                    messages.append(evaluate(text, data) if text else rule["message"])
        except ValueError as error:
            assert spec["failurePolicy"] == "Fail"
            messages.append(f"failed: {error}")
    return messages


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_requests(case: Case) -> None:
    messages = review(case.value)
    if case.message is None:
        assert messages == []
    else:
        assert [message for message in messages if case.message in message and "\n" not in message], messages


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "katib").glob("*-*.yaml")))
def test_shipped_experiments_are_admitted(name: str) -> None:
    assert review(yaml.safe_load((ROOT / "katib" / f"{name}.yaml").read_text(encoding="utf-8"))) == []


def test_the_job_that_prepares_volumes_is_admitted() -> None:
    assert review(yaml.safe_load((ROOT / "deploy/base/volumes.yaml").read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("entry", "image", "admitted"),
    [
        ("registry.example.com/team/isotrain@*", "registry.example.com/team/isotrain@sha256:0", True),
        ("registry.example.com/team/isotrain@*", "registry.example.com/team/isotrain:1", False),
        ("registry.example.com/team/isotrain@*", "registry.example.com/team/isotrain-evil@sha256:0", False),
        ("registry.example.com/team/*", "registry.example.com/team/isotrain:1", True),
        ("registry.example.com/team/*", "registry.example.com/team/other/isotrain:1", False),
        ("registry.example.com/team/*", "registry.example.com/teams/isotrain:1", False),
        ("isotrain:*", "isotrain:0.2.0", True),
        ("isotrain:*", "isotrain:5000/evil", False),
        ("*", "evil", True),
        ("*", "registry.example.com/evil", False),
        ("isotrain", "isotrain:1", False),
        ("a, b", "b", True),
        ("a,b,", "a", True),
        ("", "isotrain:0.1.0", False),
    ],
)
def test_entries_of_images(entry: str, image: str, admitted: bool) -> None:
    value = job("Job")
    container(value)["image"] = image
    assert (review(value, limits={**LIMITS, "isotrain/images": entry}) == []) is admitted


def test_without_limits_everything_is_refused() -> None:
    messages = " ".join(review(experiment("Job"), limits={}) + review(job("TrainJob"), limits={}))
    assert all(f"is not in the namespace annotation {key}" in messages for key in LIMITS)


def test_updates_are_checked_if_the_spec_changes() -> None:
    old = experiment("Job")
    pod(old)["hostNetwork"] = True
    new = copy.deepcopy(old)
    new["metadata"]["finalizers"] = []
    assert review(new, old) == []  # Katib removes its finalizer
    new["spec"]["maxTrialCount"] = 1
    assert len(review(new, old)) == 1
    assert review(owned("ServiceAccount"), owned("ServiceAccount")) == []


def test_text_that_is_no_list_is_refused() -> None:
    value = experiment("Job")
    pod(value)["containers"] = None
    assert [message for message in review(value) if message.startswith("failed:")]


def test_files_name_what_is_there() -> None:
    assert POLICIES.keys() == BINDINGS.keys()
    text = (ADMISSION / "policy.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"annotations\[\?'(.*?)'\]", text)) == LIMITS.keys()
    assert set(re.findall(r"annotation (isotrain/[\w-]+)", text)) == LIMITS.keys()
    assert "paramKind" not in text  # kubernetes/kubernetes#130887
    (label,) = {str(binding["matchResources"]["namespaceSelector"]["matchLabels"]) for binding in BINDINGS.values()}
    assert label == str({"isotrain/admission": "enforce"})
    for page in (ADMISSION / "kustomization.yaml", ROOT / "docs/katib.md"):
        commands = page.read_text(encoding="utf-8")
        assert "kubectl label namespace NAMESPACE isotrain/admission=enforce" in commands
        assert all(f"{key}=" in commands for key in LIMITS)
    # Policies belong to the cluster: nothing applies them but their own folder.
    for folder in (ROOT / "katib", *(ROOT / "deploy" / name for name in ("namespace", "standalone", "example"))):
        assert not [value for value in render(folder) if value["kind"].startswith("Validating")]
    assert len(render(ADMISSION)) == 4
    for file in ("katib/cluster/rbac.yaml", "deploy/base/access.yaml"):  # no role of ours changes the limits
        assert "namespaces" not in str(list(yaml.safe_load_all((ROOT / file).read_text(encoding="utf-8"))))
