"""OptimizationJobs, and what an API server with the CRD answers: tests/test_optimization_job.py asks `check`, and
tests/cluster a real server. The CRD is that of Trainer's master 8c0f505."""

import copy
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

Value = dict[str, Any]
VARIABLE = "KUBEFLOW_TRAINER_OPT_"
TRIAL_NAME = {
    "name": "KATIB_TRIAL_NAME",
    "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['jobset.sigs.k8s.io/jobset-name']"}},
}
COMMAND = [
    *("python", "train.py", "model=bert_tiny", "data=squad_sample"),
    *(
        f"optim.lr=$({VARIABLE}lr)",
        f"data.batch_size=$({VARIABLE}batch_size)",
        "hydra.run.dir=/runs/$(KATIB_TRIAL_NAME)",
    ),
]


class Case(NamedTuple):
    """A request to create an OptimizationJob.

    Attributes:
        name: its name.
        value: the object.
        refusal: part of the API server's refusal; None if it accepts the object.
        codes: of the errors of `check`.
    """

    name: str
    value: Value
    refusal: str | None
    codes: set[str]


def base() -> Value:
    """An OptimizationJob that has nothing wrong."""
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "OptimizationJob",
        "metadata": {"name": "search"},
        "spec": {
            "objectives": [{"metric": "val_f1", "direction": "Maximize"}],
            "searchAlgorithm": {"random": {"seed": 1}},
            "parameters": [
                {"name": "lr", "searchSpace": {"logUniform": {"min": "1e-5", "max": "1e-3", "type": "Float"}}},
                {"name": "batch_size", "searchSpace": {"categorical": {"choices": ["8", "16"]}}},
            ],
            "numTrials": 4,
            "parallelTrials": 2,
            "trainJobTemplate": {
                "spec": {
                    "runtimeRef": {"name": "isotrain", "kind": "TrainingRuntime", "apiGroup": "trainer.kubeflow.org"},
                    "trainer": {
                        **{"numNodes": 1, "numProcPerNode": 1, "image": "isotrain:1"},
                        **{"command": list(COMMAND), "env": [TRIAL_NAME]},
                    },
                }
            },
        },
    }


def put(*path: str | int, value: Any) -> Callable[[Value], None]:
    """A change that sets the value at a path of the spec, or removes it (`...`)."""

    def change(job: Value) -> None:
        target: Any = job["spec"]
        for part in path[:-1]:
            target = target[part]
        if value is ...:
            del target[path[-1]]
        else:
            target[path[-1]] = copy.deepcopy(value)

    return change


def space(**value: Any) -> Callable[[Value], None]:
    """A change of the search space of lr."""
    return put("parameters", 0, "searchSpace", value=value)


def bounds(low: Any, high: Any, kind: str = "uniform", **rest: Any) -> Callable[[Value], None]:
    """A change of the bounds of lr."""
    return space(**{kind: {"min": low, "max": high, **rest}})


def choices(*values: Any) -> Callable[[Value], None]:
    """A change of the choices of batch_size."""
    return put("parameters", 1, "searchSpace", "categorical", "choices", value=list(values))


def trainer(key: str, value: Any) -> Callable[[Value], None]:
    """A change of a field of the trainer."""
    return put("trainJobTemplate", "spec", "trainer", key, value=value)


def template(key: str, value: Any) -> Callable[[Value], None]:
    """A change of a field of the TrainJob."""
    return put("trainJobTemplate", "spec", key, value=value)


def only(name: str) -> Callable[[Value], None]:
    """A change that leaves one parameter, in the command too."""

    def change(job: Value) -> None:
        job["spec"]["parameters"] = [{"name": name, "searchSpace": {"categorical": {"choices": ["8", "16"]}}}]
        command = f"data.batch_size=$({VARIABLE}{name})"
        job["spec"]["trainJobTemplate"]["spec"]["trainer"]["command"][4:6] = [command]

    return change


def many(count: int) -> Callable[[Value], None]:
    """A change that adds parameters until there are `count`."""

    def change(job: Value) -> None:
        names = [f"p{index}" for index in range(count - 2)]
        uniform = {"uniform": {"min": "0", "max": "1"}}
        job["spec"]["parameters"] += [{"name": name, "searchSpace": uniform} for name in names]
        words = [f"+{name}=$({VARIABLE}{name})" for name in names]
        job["spec"]["trainJobTemplate"]["spec"]["trainer"]["command"] += words

    return change


ONE_SPACE = "exactly one of the fields in [uniform logUniform categorical] must be set"
ONE_ALGORITHM = "exactly one of the fields in [random grid] must be set"
ORDER = "min must be strictly less than max"
POSITIVE = "min must be strictly greater than 0"
METADATA = "name and namespace cannot be set in a template."
GRID = "Grid search requires all parameters to be Categorical"
UNKNOWN = "unknown field"
# Changes that an API server refuses: (change, part of its answer, code of the error of `check`).
REFUSED: dict[str, tuple[Callable[[Value], Any], str, str]] = {
    "no-spec": (lambda j: j.pop("spec"), "spec: Required value", "K502"),
    "version": (lambda j: j.update(apiVersion="trainer.kubeflow.org/v1"), "", "K501"),
    "name": (lambda j: j["metadata"].update(name="Search"), "metadata.name", "K502"),
    "objectives-missing": (put("objectives", value=...), "spec.objectives: Required value", "K502"),
    "objectives-none": (put("objectives", value=[]), "spec.objectives", "K502"),
    "objectives-two": (
        put("objectives", value=[{"metric": "a"}, {"metric": "b"}]),
        "spec.objectives: Too many",
        "K502",
    ),
    "metric-missing": (put("objectives", 0, "metric", value=...), "spec.objectives[0].metric", "K502"),
    "metric-empty": (put("objectives", 0, "metric", value=""), "spec.objectives[0].metric", "K502"),
    "metric-long": (put("objectives", 0, "metric", value="m" * 65), "spec.objectives[0].metric: Too long", "K502"),
    "metric-number": (put("objectives", 0, "metric", value=1), "spec.objectives[0].metric", "K501"),
    "direction-case": (put("objectives", 0, "direction", value="maximize"), "Unsupported value", "K502"),
    "objective-field": (put("objectives", 0, "goal", value="1"), UNKNOWN, "K501"),
    "algorithm-none": (put("searchAlgorithm", value={}), ONE_ALGORITHM, "K503"),
    "algorithm-two": (put("searchAlgorithm", value={"random": {}, "grid": {}}), ONE_ALGORITHM, "K503"),
    "algorithm-null": (put("searchAlgorithm", value={"random": None}), "spec.searchAlgorithm", "K503"),
    "algorithm-tpe": (put("searchAlgorithm", value={"tpe": {}}), UNKNOWN, "K501"),
    "algorithm-text": (put("searchAlgorithm", value="random"), "spec.searchAlgorithm", "K501"),
    "seed-text": (put("searchAlgorithm", "random", "seed", value="1"), "spec.searchAlgorithm.random.seed", "K501"),
    "seed-float": (put("searchAlgorithm", "random", "seed", value=1.5), "spec.searchAlgorithm.random.seed", "K501"),
    "seed-large": (put("searchAlgorithm", "random", "seed", value=2**63), "seed", "K502"),
    "grid-setting": (
        lambda j: (only("batch_size")(j), put("searchAlgorithm", value={"grid": {"seed": 1}})(j)),
        UNKNOWN,
        "K501",
    ),
    "grid-range": (put("searchAlgorithm", value={"grid": {}}), GRID, "K503"),
    "trials-zero": (put("numTrials", value=0), "spec.numTrials", "K502"),
    "trials-many": (put("numTrials", value=101), "spec.numTrials", "K502"),
    "trials-text": (put("numTrials", value="4"), "spec.numTrials", "K501"),
    "trials-bool": (put("numTrials", value=True), "spec.numTrials", "K501"),
    "parallel-zero": (put("parallelTrials", value=0), "spec.parallelTrials", "K502"),
    "parallel-many": (
        lambda j: (put("parallelTrials", value=101)(j), put("numTrials", value=100)(j)),
        "spec.parallelTrials",
        "K502",
    ),
    "parallel-above-trials": (put("parallelTrials", value=5), "parallelTrials cannot exceed numTrials", "K503"),
    "parallel-above-default": (put("numTrials", value=...), "parallelTrials cannot exceed numTrials", "K503"),
    "parameters-missing": (put("parameters", value=...), "spec.parameters: Required value", "K502"),
    "parameters-none": (put("parameters", value=[]), "spec.parameters", "K502"),
    "parameters-many": (many(101), "spec.parameters: Too many", "K502"),
    "parameters-alike": (put("parameters", 0, "name", value="batch_size"), "Duplicate value", "K502"),
    "parameter-null": (put("parameters", 0, value=None), "spec.parameters", "K501"),
    "parameter-name-missing": (put("parameters", 0, "name", value=...), "spec.parameters[0].name", "K502"),
    "parameter-name-empty": (put("parameters", 0, "name", value=""), "spec.parameters[0].name", "K502"),
    "parameter-name-long": (put("parameters", 0, "name", value="n" * 65), "Too long", "K502"),
    "space-missing": (put("parameters", 0, "searchSpace", value=...), "searchSpace: Required value", "K502"),
    "space-null": (put("parameters", 0, "searchSpace", value=None), "searchSpace", "K502"),
    "space-none": (space(), ONE_SPACE, "K503"),
    "space-two": (space(uniform={"min": "0", "max": "1"}, categorical={"choices": ["1"]}), ONE_SPACE, "K503"),
    "space-normal": (space(normal={"min": "0", "max": "1"}), UNKNOWN, "K501"),
    "min-above-max": (bounds("2", "1"), ORDER, "K503"),
    "min-is-max": (bounds("1", "1.0"), ORDER, "K503"),
    "log-min-is-max": (bounds("1", "1", "logUniform"), ORDER, "K503"),
    "log-zero": (bounds("0", "1", "logUniform"), POSITIVE, "K503"),
    "log-negative": (bounds("-1", "1", "logUniform"), POSITIVE, "K503"),
    "number-huge": (bounds("-9", "1e999"), "", "K503"),
    "number-float": (bounds("0", 0.5), "uniform.max", "K501"),
    "step": (bounds("0", "1", step="0.1"), UNKNOWN, "K501"),
    "choices-missing": (put("parameters", 1, "searchSpace", "categorical", value={}), "choices: Required value", "K502"),
    "choices-none": (choices(), "choices", "K502"),
    "choices-alike": (choices("8", "8"), "Duplicate value", "K502"),
    "choices-many": (choices(*map(str, range(1, 102))), "choices: Too many", "K502"),
    "choice-long": (choices("8" * 65), "Too long", "K502"),
    "choice-number": (choices(8, 16), "choices[0]", "K501"),
    "choice-null": (choices("8", None), "choices[1]", "K501"),
    "template-missing": (put("trainJobTemplate", value=...), "spec.trainJobTemplate: Required value", "K502"),
    "template-name": (put("trainJobTemplate", "metadata", value={"name": "a"}), METADATA, "K503"),
    "template-namespace": (put("trainJobTemplate", "metadata", value={"namespace": "a"}), METADATA, "K503"),
    "template-generate-name": (put("trainJobTemplate", "metadata", value={"generateName": "a"}), UNKNOWN, "K501"),
    "train-job-missing": (put("trainJobTemplate", "spec", value=...), "trainJobTemplate.spec: Required value", "K502"),
    "runtime-missing": (template("runtimeRef", ...), "runtimeRef: Required value", "K502"),
    "runtime-name-missing": (template("runtimeRef", {"kind": "TrainingRuntime"}), "runtimeRef.name", "K502"),
    "runtime-name-empty": (template("runtimeRef", {"name": ""}), "runtimeRef.name", "K502"),
    "deadline-zero": (template("activeDeadlineSeconds", 0), "activeDeadlineSeconds", "K502"),
    "managed-by": (template("managedBy", "me"), "managedBy", "K502"),
    "patches-alike": (template("runtimePatches", [{"manager": "a.b/c"}, {"manager": "a.b/c"}]), "Duplicate", "K502"),
    "patch-without-manager": (template("runtimePatches", [{"trainingRuntimeSpec": {}}]), "manager", "K502"),
    "train-job-field": (template("replicas", 2), UNKNOWN, "K218"),
    "train-job-lost-field": (template("podTemplateOverrides", []), UNKNOWN, "K224"),
    "trainer-field": (trainer("volumes", []), UNKNOWN, "K218"),
    "processes-zero": (trainer("numProcPerNode", 0), "numProcPerNode", "K502"),
    "processes-text": (trainer("numProcPerNode", "auto"), "numProcPerNode", "K501"),
    "nodes-negative": (trainer("numNodes", -1), "numNodes", "K502"),
    "variables-alike": (trainer("env", [TRIAL_NAME, TRIAL_NAME]), "Duplicate value", "K502"),
    "variable-without-name": (trainer("env", [TRIAL_NAME, {"value": "1"}]), "name", "K502"),
    "command-text": (trainer("command", "python train.py"), "trainer.command", "K501"),
    "image-long": (trainer("image", "i" * 501), "Too long", "K502"),
    "spec-field": (put("maxTrialCount", value=4), UNKNOWN, "K501"),
}  # fmt: skip
NUMBERS = {
    **{
        "point-first": ".5",
        "point-last": "5.",
        "plus": "+1",
        "zero-first": "01",
        "nan": "nan",
        "inf": "inf",
        "empty": "",
    },
    **{"hexadecimal": "0x1", "blank": " 1", "comma": "1,5", "underscore": "1_0", "line": "1\n", "arabic": "\u0661"},
}
VARIABLES = [{"name": f"V{index}", "value": "1"} for index in range(128)]
TWINS = [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]
SOURCES: dict[str, tuple[Any, str]] = {
    "text": ("hf://a/b", "K501"),
    "address": ({"storageUri": "here"}, "K502"),
    "address-number": ({"storageUri": 1}, "K501"),
    "address-long": ({"storageUri": "hf://" + "a" * 2048}, "K502"),
    "variables-text": ({"env": "A"}, "K501"),
    "variable-text": ({"env": ["A"]}, "K501"),
    "variables-alike": ({"env": TWINS}, "K502"),
    "variables-many": ({"env": [*VARIABLES, {"name": "B"}]}, "K502"),
    "variable-without-name": ({"env": [{"value": "1"}]}, "K502"),
}
TRAIN_JOB = "spec.trainJobTemplate.spec"


def refused_bounds(kind: str) -> Iterator[tuple[str, tuple[Callable[[Value], Any], str, str]]]:
    """Yields changes of a uniform or logUniform space that an API server refuses, as in `REFUSED`."""
    bounds = {"min": "1", "max": "2"}
    path = f"spec.parameters[0].searchSpace.{kind}"
    for key in bounds:
        for title, text in NUMBERS.items():
            yield f"{key}-{title}", (space(**{kind: {**bounds, key: text}}), f"{path}.{key}", "K502")
        yield f"{key}-long", (space(**{kind: {**bounds, key: "1." + "1" * 63}}), f"{path}.{key}: Too long", "K502")
        yield f"{key}-number", (space(**{kind: {**bounds, key: 1}}), f"{path}.{key}", "K501")
        rest = {name: text for name, text in bounds.items() if name != key}
        yield f"{key}-missing", (space(**{kind: rest}), f"{path}.{key}: Required value", "K502")
    yield "text", (space(**{kind: "1"}), path, "K501")
    yield "type-number", (space(**{kind: {**bounds, "type": 1}}), f"{path}.type", "K501")
    yield "type-unknown", (space(**{kind: {**bounds, "type": "Double"}}), "Unsupported value", "K502")


for kind in ("uniform", "logUniform"):
    REFUSED |= {f"{kind}-{name}": row for name, row in refused_bounds(kind)}
for source in ("dataset", "model"):
    for title, (content, code) in SOURCES.items():
        REFUSED[f"{source}-{title}"] = (
            template("initializer", {source: content}),
            f"{TRAIN_JOB}.initializer.{source}",
            code,
        )
REFUSED |= {
    "direction-number": (put("objectives", 0, "direction", value=1), "spec.objectives[0].direction", "K501"),
    "name-number": (put("parameters", 0, "name", value=1), "spec.parameters[0].name", "K501"),
    "parallel-text": (put("parallelTrials", value="2"), "spec.parallelTrials", "K501"),
    "template-name-number": (put("trainJobTemplate", "metadata", value={"name": 1}), "metadata.name", "K501"),
    "template-namespace-number": (
        put("trainJobTemplate", "metadata", value={"namespace": 1}),
        "metadata.namespace",
        "K501",
    ),
    "runtime-text": (template("runtimeRef", "isotrain"), f"{TRAIN_JOB}.runtimeRef", "K501"),
    "runtime-name-number": (template("runtimeRef", {"name": 1}), f"{TRAIN_JOB}.runtimeRef.name", "K501"),
    "runtime-name-long": (template("runtimeRef", {"name": "n" * 254}), "Too long", "K502"),
    "deadline-text": (template("activeDeadlineSeconds", "60"), f"{TRAIN_JOB}.activeDeadlineSeconds", "K501"),
    "managed-by-number": (template("managedBy", 1), f"{TRAIN_JOB}.managedBy", "K501"),
    "patches-text": (template("runtimePatches", "a"), f"{TRAIN_JOB}.runtimePatches", "K501"),
    "patch-text": (template("runtimePatches", ["a.b/c"]), f"{TRAIN_JOB}.runtimePatches[0]", "K501"),
    "patches-many": (
        template("runtimePatches", [{"manager": f"a.b/{index}"} for index in range(17)]),
        f"{TRAIN_JOB}.runtimePatches: Too many",
        "K502",
    ),
    "initializer-text": (template("initializer", "hf://a/b"), f"{TRAIN_JOB}.initializer", "K501"),
    "image-number": (trainer("image", 1), f"{TRAIN_JOB}.trainer.image", "K501"),
    "command-long": (trainer("command", [*COMMAND, *["+a=1"] * 122]), f"{TRAIN_JOB}.trainer.command: Too many", "K502"),
    "arguments-text": (trainer("args", "a"), f"{TRAIN_JOB}.trainer.args", "K501"),
    "arguments-long": (trainer("args", ["seed=1"] * 129), f"{TRAIN_JOB}.trainer.args: Too many", "K502"),
    "variables-text": (trainer("env", "a"), f"{TRAIN_JOB}.trainer.env", "K501"),
    "variable-text": (trainer("env", ["a"]), f"{TRAIN_JOB}.trainer.env[0]", "K501"),
    "variables-many": (trainer("env", [TRIAL_NAME, *VARIABLES]), f"{TRAIN_JOB}.trainer.env: Too many", "K502"),
    "nodes-text": (trainer("numNodes", "1"), f"{TRAIN_JOB}.trainer.numNodes", "K501"),
}
# Changes that it accepts: (change, codes of the errors of `check`, for what cannot work).
ACCEPTED: dict[str, tuple[Callable[[Value], Any], set[str]]] = {
    "unchanged": (lambda j: None, set()),
    "defaults": (
        lambda j: [j["spec"].pop(key) for key in ("searchAlgorithm", "numTrials", "parallelTrials")],
        set(),
    ),
    "default-algorithm-null": (put("searchAlgorithm", value=None), set()),
    "default-direction": (put("objectives", 0, value={"metric": "val_loss"}), set()),
    "trials-most": (lambda j: (put("numTrials", value=100)(j), put("parallelTrials", value=100)(j)), set()),
    "grid": (
        lambda j: (only("batch_size")(j), put("searchAlgorithm", value={"grid": {}})(j), put("numTrials", value=2)(j)),
        set(),
    ),
    "seed-negative": (put("searchAlgorithm", "random", "seed", value=-1), set()),
    "seed-long": (put("searchAlgorithm", "random", "seed", value=2**62), set()),
    "number-exponent": (bounds("1E-5", "1e+0"), set()),
    "number-point": (bounds("0.10", "0.5"), set()),
    "range-negative": (bounds("-1", "1"), {"K401"}),
    "integer": (
        lambda j: put("parameters", 1, "searchSpace", value={"uniform": {"min": "8", "max": "16", "type": "Int"}})(j),
        set(),
    ),
    "integer-fraction": (bounds("0.5", "3", type="Int"), {"K506"}),
    "choice-empty": (choices("8", ""), {"K401"}),
    "choice-only": (choices("8"), set()),
    "name-longest": (only("n" * 64), set()),
    "name-dots": (only("data.batch_size"), set()),
    "name-blank": (only("batch size"), {"K504"}),
    "name-slash": (only("batch/size"), {"K504"}),
    "template-labels": (
        put("trainJobTemplate", "metadata", value={"labels": {"kueue.x-k8s.io/queue-name": "team"}}),
        set(),
    ),
    "multikueue": (template("managedBy", "kueue.x-k8s.io/multikueue"), set()),
    "suspended": (template("suspend", True), set()),
    "nodes-large": (trainer("numNodes", 2**31), {"K502"}),  # no int32, and so no controller can read it
    "processes-large": (trainer("numProcPerNode", 2**31), {"K502"}),
    "nodes-none": (trainer("numNodes", 0), {"K226"}),
    "parameter-unused": (trainer("command", [*COMMAND[:5], *COMMAND[6:]]), {"K505"}),
    "parameter-wrong-type": (trainer("command", [*COMMAND[:4], f"seed=$({VARIABLE}lr)", *COMMAND[5:]]), {"K401"}),
    "parameter-out-of-range": (choices("0"), {"K401"}),
    "folder-shared": (trainer("command", [*COMMAND[:6], "hydra.run.dir=/runs/a"]), {"K404"}),
    "metric-unknown": (put("objectives", 0, "metric", value="val_accuracy"), {"K402"}),
    "metric-direction": (put("objectives", 0, "direction", value="Minimize"), {"K402"}),
    "shell-splits": (
        lambda j: (trainer("command", ["sh", "-c", " ".join(COMMAND)])(j), choices("8", "1 6")(j)),
        {"K206"},
    ),
    "rendezvous": (trainer("env", [TRIAL_NAME, {"name": "PET_NNODES", "value": "2"}]), {"K228"}),
    "other-program": (trainer("command", ["python", "fit.py"]), set()),
}


def cases() -> Iterator[Case]:
    """Yields each object with its answers."""
    for name, (change, refusal, code) in REFUSED.items():
        value = base()
        change(value)
        yield Case(f"refused-{name}", value, refusal, {code})
    for name, (change_accepted, codes) in ACCEPTED.items():
        value = base()
        change_accepted(value)
        yield Case(f"accepted-{name}", value, None, codes)
