"""The image, without an engine: the Dockerfile's rules, what goes into the build, the local stack, and the image's own proof."""

import importlib.metadata
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import yaml
from tests.conftest import ROOT

from config.compose import compose

DOCKERFILE = (ROOT / "Dockerfile").read_text()
IGNORE = (ROOT / ".dockerignore").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
LABELS = {"revision": "REVISION", "created": "CREATED", "version": "VERSION"}
SECRET = re.compile(r"token|secret|passw|credential|api_?key|private", re.IGNORECASE)


class Instruction(NamedTuple):
    """One instruction of a Dockerfile, its continued lines joined and comments left out."""

    stage: int  # from 0; -1 before the first FROM
    name: str
    words: str

    def flag(self, name: str) -> str | None:
        """The value of --name=value."""
        found = re.match(rf"(?:--\S+\s+)*?--{name}=(\S+)", self.words)
        return found[1] if found else None

    @property
    def arguments(self) -> list[str]:
        """The words after the flags."""
        return [word for word in shlex.split(self.words) if not word.startswith("--")]


def instructions(text: str) -> list[Instruction]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found, stage = [], -1
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        name, _, words = line.strip().partition(" ")
        stage += name.upper() == "FROM"
        found.append(Instruction(stage, name.upper(), words.strip()))
    return found


def problems(text: str, ignore: str = IGNORE) -> Iterator[str]:
    """What breaks a rule of ours: of pinning, of layers, of what is copied. Other rules are hadolint's (`make lint`)."""
    found = instructions(text)
    arguments = dict(each.words.partition("=")[::2] for each in found if each.name == "ARG" and each.stage < 0)
    stages: list[str] = []
    for each in found:
        if each.name == "FROM":
            image, *alias = each.arguments
            image = re.sub(r"\$\{?(\w+)\}?", lambda name: arguments.get(name[1], ""), image)
            if image not in stages and not re.search(r"@sha256:(?!0{64})[0-9a-f]{64}$", image):
                yield f"the base {image} has no digest"
            stages += alias[1:]
        if each.name == "RUN":
            yield from _run(each.words)
        if each.name == "COPY":
            yield from _copy(each, ignore)
    yield from _order(found)
    yield from _last(found)


def _run(words: str) -> Iterator[str]:
    for call in re.findall(r"pip\S* install [^;&|]*", words):
        for needed in ("--no-cache-dir", "--require-hashes", "--no-deps", "--no-build-isolation"):
            if needed not in call:
                yield f"pip without {needed}"


def _copy(each: Instruction, ignore: str) -> Iterator[str]:
    if each.flag("from"):
        return
    for source in each.arguments[:-1]:
        if re.search(r"[*?\[]|^\.?/?$", source):
            yield f"COPY {source} takes whatever is there"
        elif not (ROOT / source).exists():
            yield f"COPY {source}, which does not exist"
        elif ignored(source, ignore):
            yield f"COPY {source}, which .dockerignore leaves out"


def _order(found: list[Instruction]) -> Iterator[str]:
    for stage in range(max(each.stage for each in found) + 1):
        here = [each for each in found if each.stage == stage]
        packages = [n for n, each in enumerate(here) if "install" in each.words and "pip" in each.words]
        early = here[: max(packages, default=0)]
        copied = [source for each in early if each.name == "COPY" for source in each.arguments[:-1]]
        if any(not source.endswith(".lock") for source in copied):
            yield "source before packages: every change installs all of them again"
        late = [n for n, each in enumerate(here) if each.name in ("COPY", "RUN")]
        stamps = [
            n for n, each in enumerate(here) if each.name == "ARG" and each.words.split("=")[0] in LABELS.values()
        ]
        if stamps and late and min(stamps) < max(late):
            yield "a build's stamp before the layers: every commit makes all of them again"


def _last(found: list[Instruction]) -> Iterator[str]:
    here = [each for each in found if each.stage == max(one.stage for one in found)]
    users = [each.words for each in here if each.name == "USER"]
    if not users or not re.fullmatch(r"1000:1000", users[-1]):
        yield "the last USER is not 1000:1000, which pods can tell from root and our volumes belong to"
    if [each.words for each in here if each.name == "WORKDIR"][-1:] != ["/opt/isotrain"]:
        yield "it does not start in /opt/isotrain"
    labels = " ".join(each.words for each in here if each.name == "LABEL")
    for label, argument in LABELS.items():
        declared = any(each.name == "ARG" and each.words.split("=")[0] == argument for each in here)
        if f'org.opencontainers.image.{label}="${{{argument}}}"' not in labels or not declared:
            yield f"no label {label} from {argument}"
    if not any(each.name == "ENV" and "ISOTRAIN_REVISION=${REVISION}" in each.words for each in here):
        yield "run.json would not know the revision"


def ignored(path: str, patterns: str) -> bool:
    """Whether .dockerignore leaves a path out: the last pattern that fits it, or a folder above it, decides."""
    parents = ["/".join(path.split("/")[: n + 1]) for n in range(path.count("/") + 1)]
    out = False
    for pattern in patterns.splitlines():
        kept, pattern = pattern.startswith("!"), pattern.strip().removeprefix("!")
        if not pattern or pattern.startswith("#"):
            continue
        parts = [
            re.escape(part).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
            for part in re.split(r"(\[\w+\])", pattern)
        ]
        expression = "".join(part.replace(r"\[", "[").replace(r"\]", "]") for part in parts)
        if any(re.fullmatch(expression, each) for each in parents):
            out = not kept
    return out


def test_the_dockerfile_keeps_the_rules() -> None:
    assert list(problems(DOCKERFILE)) == []
    assert [each.words for each in instructions(DOCKERFILE) if each.name == "FROM"] == [
        "${BASE} AS packages",
        "${BASE} AS cuda",
        "${BASE} AS cpu",
        "${ACCELERATOR}",
    ]
    assert "syntax=" not in DOCKERFILE  # nothing else is fetched to read it


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (r"@sha256:\w+", "", "has no digest"),
        (r"@sha256:\w+", "@sha256:" + "0" * 64, "has no digest"),
        (r"FROM \$\{ACCELERATOR\}\n", "FROM debian:12\n", "the base debian:12 has no digest"),
        (r"USER 1000:1000\n", "", "the last USER"),
        (r"USER 1000:1000\n", "USER 1000:1000\nUSER root\n", "the last USER"),
        (r"USER 1000:1000\n", "USER isotrain\n", "the last USER"),
        (r"--no-cache-dir ", "", "pip without --no-cache-dir"),
        (r"--require-hashes ", "", "pip without --require-hashes"),
        (r"--no-deps ", "", "pip without --no-deps"),
        (r"--no-build-isolation ", "", "pip without --no-build-isolation"),
        (r"COPY requirements-image.lock ./\n", "COPY requirements-image.lock ./\nCOPY src src\n", "source before packages"),
        (r"COPY conf conf\n", "COPY . .\n", "takes whatever is there"),
        (r"COPY conf conf\n", "COPY con? conf\n", "takes whatever is there"),
        (r"COPY conf conf\n", "COPY config config\n", "does not exist"),
        (r"COPY conf conf\n", "COPY tests tests\n", "which .dockerignore leaves out"),
        (r"ENV ISOTRAIN_REVISION=.*\n", "", "run.json would not know"),
        (r"org.opencontainers.image.created=.*\n", "x=y \\\\\n", "no label created"),
        (r"FROM \$\{ACCELERATOR\}\n", "FROM ${ACCELERATOR}\nARG REVISION\n", "a build's stamp before the layers"),
        (r"WORKDIR /opt/isotrain\n", "WORKDIR /work\n", "does not start in"),
    ],
)  # fmt: skip
def test_a_broken_dockerfile_is_found(old: str, new: str, found: str) -> None:
    broken = re.sub(old, new, DOCKERFILE, count=1)
    assert broken != DOCKERFILE
    assert any(found in each for each in problems(broken)), list(problems(broken))


@pytest.mark.parametrize(
    "path",
    [
        ".git/config", ".venv/bin/python", ".env", "src/.env", "conf/.cache/x", "outputs/run.json", "tests/test_image.py", "docs/image.md",
        "src/katib/__pycache__/run.cpython-312.pyc", "src/runs/x.pyo", "src/isotrain.egg-info/PKG-INFO", "requirements-dev.lock",
        "multirun/x", "searches/x", "deploy/base/access.yaml", "image/build-here.sh", "token.txt", "shared/data/x",
    ],
)  # fmt: skip
def test_what_stays_out_of_the_build(path: str) -> None:
    assert ignored(path, IGNORE)


def test_all_of_the_code_goes_into_the_build() -> None:
    files = [
        path for name in ("conf", "contracts", "katib", "src") for path in (ROOT / name).rglob("*") if path.is_file()
    ]
    made = ("__pycache__", ".egg-info")  # by those who run it
    wanted = [str(path.relative_to(ROOT)) for path in files if not any(each in str(path) for each in made)]
    wanted += ["train.py", "LICENSE"]
    assert len(wanted) > 100
    assert [path for path in wanted if ignored(path, IGNORE)] == []
    copied = {source for each in instructions(DOCKERFILE) if each.name == "COPY" for source in each.arguments[:-1]}
    assert {
        "conf",
        "contracts",
        "katib",
        "src",
        "train.py",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "image/prove.py",
        "image/remove_gpu_libraries.py",
    } < copied
    # Without its own pattern none of them would go in: the list is complete, and has nothing that is not needed.
    allowed = {line[1:] for line in IGNORE.splitlines() if line.startswith("!")}
    assert allowed == {source for source in copied if not source.startswith("/opt")}
    for pattern in allowed:
        without = IGNORE.replace(f"!{pattern}\n", "")
        assert any("leaves out" in each for each in problems(DOCKERFILE, without)), pattern


def test_the_lock_of_the_image_is_a_part_of_the_lock() -> None:
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^[a-z0-9._-]+==\S+", (ROOT / name).read_text(), re.MULTILINE))

    image, whole = pins("requirements-image.lock"), pins("requirements.lock")
    assert image < whole
    assert {each.partition("==")[0] for each in image} > {"kfp", "torch", "kubernetes", "setuptools", "mlflow"}
    assert not any(each.startswith(("kfp-", "google-cloud-")) for each in image)  # what only a client needs


def test_the_image_leaves_out_only_what_kfp_alone_asks_for() -> None:
    """kfp's step runtime does without what kfp names (the image proves it); nothing else may lack what it names."""
    from packaging.requirements import Requirement

    def normal(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    lock = {
        normal(name)
        for name in re.findall(r"^([a-z0-9._-]+)==", (ROOT / "requirements-image.lock").read_text(), re.MULTILINE)
    }
    lacking: dict[str, set[str]] = {}
    for name in lock - {"kfp"}:
        try:
            asked = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # of another system or Python
            continue
        for each in map(Requirement, asked):
            if each.marker is None or each.marker.evaluate({"extra": ""}):
                lacking.setdefault(normal(each.name), set()).add(name)
    assert len(lacking) > 100
    assert {name: by for name, by in lacking.items() if name not in lock} == {}


def test_the_builders_are_taken_out_of_the_lock() -> None:
    """The Dockerfile's sed: one package, with all of its hashes and nothing else."""
    (script,) = re.findall(r"sed -n '(.*?)' requirements-image.lock", DOCKERFILE)
    made = subprocess.run(
        ["sed", "-n", script, str(ROOT / "requirements-image.lock")], capture_output=True, text=True, check=True
    ).stdout
    assert re.match(r"setuptools==[\d.]+ \\\n", made)
    assert made.count("==") == 1
    block = re.search(r"^setuptools==(?:.*\\\n)+.*\n", (ROOT / "requirements-image.lock").read_text(), re.MULTILINE)
    assert block is not None
    assert made == block[0]


def test_the_image_is_the_one_that_the_manifests_name() -> None:
    build = re.findall(
        r"isotrain:([\w.]+)",
        DOCKERFILE + (ROOT / "docker-compose.yml").read_text() + (ROOT / "docs/image.md").read_text(),
    )
    assert set(build) == {VERSION}
    for path in (ROOT / "katib").glob("*.yaml"):
        assert set(re.findall(r"image: isotrain:(\S+)", path.read_text())) <= {VERSION}
    user = next(each for each in instructions(DOCKERFILE) if each.name == "USER").words.split(":")
    assert re.findall(r"runAsUser: (\d+), runAsGroup: (\d+)", (ROOT / "katib/questions-tpe.yaml").read_text()) == [
        tuple(user)
    ]


# The local stack


def stack_problems(stack: dict[str, Any]) -> Iterator[str]:
    """What breaks a rule of ours in a compose file."""
    if more := set(stack) - {"name", "services", "volumes"}:
        yield f"unknown: {sorted(more)}"
    folders = re.search(r"install -d -m 1777 ([^;\n]+)", DOCKERFILE)
    assert folders is not None
    for name, service in stack["services"].items():
        keys = {
            "image", "build", "command", "entrypoint", "environment", "ports", "volumes", "healthcheck", "restart", "init", "cap_drop",
            "security_opt", "profiles", "depends_on", "stop_grace_period", "shm_size",
        }  # fmt: skip
        if more := set(service) - keys:
            yield f"{name} has {sorted(more)}"
        if (
            service["image"] != f"${{ISOTRAIN_IMAGE:-isotrain:{VERSION}}}"
            or service["build"]["args"]["VERSION"] != VERSION
        ):
            yield f"{name} is not of version {VERSION}"
        if service.get("cap_drop") != ["ALL"] or service.get("security_opt") != ["no-new-privileges:true"]:
            yield f"{name} keeps rights that it does not need"
        for port in service.get("ports", []):
            if not port.startswith("127.0.0.1:"):
                yield f"{name} answers other machines at {port}, and asks for no password"
        for volume in service.get("volumes", []):
            source, _, target = volume.partition(":")
            if source not in stack["volumes"]:
                yield f"{name}: volume {source} is not declared"
            if target not in folders[1].split():
                yield f"{name}: {target} is not in the image, and would be root's"
        for key, value in service.get("environment", {}).items():
            if SECRET.search(key) and not re.fullmatch(r"\$\{\w+:-\}", str(value)):
                yield f"{name} has the secret {key} in the file"
        for other, how in service.get("depends_on", {}).items():
            if other not in stack["services"] or how["condition"] != "service_healthy":
                yield f"{name} does not wait until {other} is healthy"
            elif not stack["services"][other].get("healthcheck", {}).get("test"):
                yield f"{name} waits for {other}, which has no healthcheck"
    server, trainer = stack["services"]["mlflow"], stack["services"]["train"]
    address = trainer["environment"]["MLFLOW_TRACKING_URI"].removeprefix("http://")
    allowed = (
        next(word for word in server["command"] if word.startswith("--allowed-hosts=")).partition("=")[2].split(",")
    )
    if address not in allowed:
        yield f"MLflow refuses requests to {address}"
    asked = re.search(r"http://([\w.:]+)/health", str(server["healthcheck"]["test"]))
    if asked is None or asked[1] not in allowed:
        yield "the healthcheck asks an address that MLflow refuses"
    for word in server["command"]:
        for path in re.findall(r"(?:/|sqlite:///)(/\w+)/", word) or re.findall(r"=(/\w+)/", word):
            if not any(volume.endswith(f":{path}") for volume in server["volumes"]):
                yield f"{word} is on no volume"


def test_the_stack_keeps_the_rules() -> None:
    assert list(stack_problems(COMPOSE)) == []
    trainer = COMPOSE["services"]["train"]
    assert trainer["profiles"] == ["train"]
    assert trainer["entrypoint"][:2] == ["python", "train.py"]
    assert compose(trainer["entrypoint"][2:]).logger._target_.endswith("MLFlowLogger")


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("127.0.0.1:5000:5000", "5000:5000", "answers other machines"),
        ("isotrain:0.1.0}", "isotrain:latest}", "is not of version"),
        ("VERSION: 0.1.0", "VERSION: 0.0.9", "is not of version"),
        ("cap_drop: [ALL]", "cap_drop: []", "keeps rights"),
        ("runs:/runs", "run:/runs", "volume run is not declared"),
        ("mlflow:/mlflow", "mlflow:/data", "/data is not in the image"),
        ("HF_TOKEN: ${HF_TOKEN:-}", "HF_TOKEN: hf_abc", "has the secret HF_TOKEN"),
        ("condition: service_healthy", "condition: service_started", "does not wait until mlflow is healthy"),
        ("      test: [CMD", "      # test: [CMD", "has no healthcheck"),
        ("http://mlflow:5000", "http://tracking:5000", "MLflow refuses requests to tracking:5000"),
        ("http://localhost:5000/health", "http://mlflow.local:5000/health", "the healthcheck asks"),
        ("sqlite:////mlflow/mlflow.db", "sqlite:////tmp/mlflow.db", "is on no volume"),
        ("--artifacts-destination=/mlflow/artifacts", "--artifacts-destination=/artifacts/x", "is on no volume"),
        ("    init: true", "    privileged: true\n    init: true", "has ['privileged']"),
        ("name: isotrain", "name: isotrain\nversion: '3'", "unknown: ['version']"),
    ],
)  # fmt: skip
def test_a_broken_stack_is_found(old: str, new: str, found: str) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    broken = text.replace(old, new, 1)
    assert broken != text
    stack = yaml.safe_load(broken)
    stack["services"]["mlflow"].setdefault("healthcheck", {}).setdefault("test", [])
    assert any(found in each for each in stack_problems(stack)), list(stack_problems(stack))


def test_mlflow_has_the_options_that_the_stack_gives_it() -> None:
    from mlflow.cli import server

    command = COMPOSE["services"]["mlflow"]["command"]
    assert command[:2] == ["mlflow", "server"]
    context = server.make_context("server", [*command[2:]], resilient_parsing=False)
    assert context.params["artifacts_destination"] == "/mlflow/artifacts"
    assert context.params["allowed_hosts"].split(",")[0] == "mlflow:5000"


# The image's proof of itself


@pytest.fixture
def prove() -> ModuleType:
    specification = importlib.util.spec_from_file_location("prove", ROOT / "image" / "prove.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_a_step_of_kubeflow_pipelines_runs_as_its_launcher_runs_it(
    prove: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert "kfp 2.17" in prove.kfp(tmp_path)
    handed = json.loads((tmp_path / "kfp-step" / "executor_output.json").read_text())
    assert handed["parameterValues"] == {"Output": ["model=bert", "optim.lr=3e-05"]}


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("return [*overrides", 'return ["x", *overrides', "it returned"),
        ('log_metric("lr", learning_rate)', 'log_metric("lr", 1.0)', "its metrics are"),
        ("<p>done</p>", "<p></p>", "its page is not there"),
        ("if learning_rate > limit", "if False", "a step that raises ends well"),
        ("more than the limit", "something else", "it failed otherwise"),
        ("from config.compose", "from configs.compose", "No module named 'configs'"),
    ],
)
def test_the_proof_sees_a_step_that_is_not_as_it_should_be(
    prove: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, found: str
) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert old in prove.STEP
    monkeypatch.setattr(prove, "STEP", prove.STEP.replace(old, new))
    with pytest.raises(prove.Broken, match=re.escape(found)):
        prove.kfp(tmp_path)


def test_the_proof_fails_where_one_thing_is_broken(
    prove: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def bad(folder: Path) -> str:
        raise prove.Broken("not as it should be")

    def bug(folder: Path) -> str:
        raise KeyError("of our own")

    monkeypatch.setattr(prove, "PROOFS", {"good": lambda folder: "fine", "bad": bad, "bug": bug})
    monkeypatch.setattr(sys, "argv", ["prove.py", "--folder", str(tmp_path)])
    assert prove.main() == 1
    said = capsys.readouterr().out
    assert "ok     good" in said
    assert "BROKEN bad" in said
    assert "not as it should be" in said
    assert said.endswith("2 broken: bad, bug\n")
    monkeypatch.setattr(sys, "argv", ["prove.py", "good", "--folder", str(tmp_path)])
    assert prove.main() == 0
    monkeypatch.setattr(sys, "argv", ["prove.py", "nothing", "--folder", str(tmp_path)])
    with pytest.raises(SystemExit):
        prove.main()


def test_the_proof_wants_the_locks_versions(prove: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = importlib.metadata.version("pyyaml")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(prove, "ROOT", tmp_path)
    monkeypatch.setattr(prove.importlib.metadata, "distributions", lambda: [importlib.metadata.distribution("pyyaml")])
    (tmp_path / "requirements.lock").write_text(
        f"pyyaml=={installed} \\\n    --hash=sha256:1\nnothing==1 ; sys_platform == 'win32' \\\n    --hash=sha256:2\n"
    )
    assert prove.packages(tmp_path).startswith("1 packages")
    (tmp_path / "requirements.lock").write_text("pyyaml==1.0 \\\n    --hash=sha256:1\n")
    with pytest.raises(prove.Broken, match=f"pyyaml {installed}, not 1.0"):
        prove.packages(tmp_path)
    (tmp_path / "requirements.lock").write_text("")
    with pytest.raises(prove.Broken, match="not in the lock: pyyaml"):
        prove.packages(tmp_path)
    (tmp_path / "requirements.lock").write_text(f"pyyaml=={installed}\ntriton==1\n")
    with pytest.raises(prove.Broken, match="triton None, not 1"):
        prove.packages(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # an image for CPUs
    assert prove.packages(tmp_path).startswith("1 packages")


def test_an_image_for_cpus_keeps_what_torch_links_to(tmp_path: Path) -> None:
    specification = importlib.util.spec_from_file_location("removal", ROOT / "image" / "remove_gpu_libraries.py")
    assert specification is not None
    assert specification.loader is not None
    removal = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(removal)
    libraries = tmp_path / "nvidia" / "cudnn" / "lib"
    libraries.mkdir(parents=True)
    for name in ("libcudnn.so.9", "libcudnn_ops.so.9", "__init__.py"):
        (libraries / name).touch()
    (libraries / "libcudnn.so").symlink_to("libcudnn.so.9")
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "libtorch.so").touch()
    found = removal.unused_libraries(tmp_path, {libraries / "libcudnn.so.9"})
    assert found == [libraries / "libcudnn_ops.so.9"]


@pytest.mark.slow
def test_gates_and_training_are_proved_on_this_machine_too(prove: ModuleType, tmp_path: Path, cache: Path) -> None:
    for name in ("commands", "training", "quality", "explain", "serving"):
        assert prove.PROOFS[name](tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_the_image_builds_and_proves_itself() -> None:
    """Needs root, buildah, the package index and 40 GiB, so it is asked for: ISOTRAIN_BUILD_ARGUMENTS="" make test-slow.

    What stands in that variable goes to `buildah bud`, e.g. a pip.conf.
    """
    lacking = [name for name in ("buildah", "debootstrap") if shutil.which(name) is None]
    if "ISOTRAIN_BUILD_ARGUMENTS" not in os.environ:
        lacking.append("ISOTRAIN_BUILD_ARGUMENTS")
    if os.getuid() != 0:
        lacking.append("root's rights")
    if shutil.disk_usage("/var/tmp").free < 40 * 2**30:
        lacking.append("40 GiB of disk")
    if lacking:
        warnings.warn(f"the image is NOT built and NOT proved here: there is no {', no '.join(lacking)}", stacklevel=1)
        pytest.skip(f"no {', no '.join(lacking)}")
    more = shlex.split(os.environ["ISOTRAIN_BUILD_ARGUMENTS"])
    done = subprocess.run([str(ROOT / "image/build-here.sh"), *more], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("the image is what it should be") == 2
