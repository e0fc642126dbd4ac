"""GitHub's workflows: this project's rules, the commands they name, and their shell blocks, run as GitHub runs them.

Form, expressions and known dangers are actionlint's and zizmor's (`make lint`). Every guard is a function from a folder of
workflows to what is wrong there, and is seen to fail below.
"""

import contextlib
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".github" / "workflows"
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
IMAGE = f"ghcr.io/owner/name@sha256:{'a' * 64}"


class Block(NamedTuple):
    """One step's `run:`."""

    file: str
    job: str
    name: str
    run: str
    env: dict[str, str]


Document = dict[str, Any]


def load(folder: Path) -> dict[str, Document]:
    """The workflows by file name. All scalars are texts, so `on` stays `on`."""
    return {
        path.name: yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader) for path in sorted(folder.glob("*.yml"))
    }


def blocks(folder: Path = FOLDER) -> list[Block]:
    """All shell blocks, with the environment that workflow, job and step give them."""
    return [
        Block(
            file,
            job,
            step.get("name", ""),
            step["run"],
            {**flow.get("env", {}), **body.get("env", {}), **step.get("env", {})},
        )
        for file, flow in load(folder).items()
        for job, body in flow["jobs"].items()
        for step in body.get("steps", [])
        if "run" in step
    ]


# --- expressions: a parser and an evaluator, for running blocks and for which jobs run

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>\d+(?:\.\d+)?)|(?P<name>[A-Za-z_][\w-]*)"
    r"|(?P<sign>&&|\|\||[!=<>]=|[!<>().,\[\]]))"
)
Tree = tuple[Any, ...]


def parse(source: str) -> Tree:
    """A tree of ("text", value), ("path", name, ...), ("call", name, tree, ...), ("not", tree) and (operator, left, right).

    Raises:
        ValueError: it is no expression.
    """
    tokens: list[tuple[str, str]] = []
    place = 0
    while source[place:].strip():
        found = _TOKEN.match(source, place)
        if found is None:
            raise ValueError(f"{source[place:].strip()!r} is no part of an expression")
        tokens.append((str(found.lastgroup), found[str(found.lastgroup)]))
        place = found.end()

    def take(*signs: str) -> str | None:
        return tokens.pop(0)[1] if tokens and tokens[0][0] == "sign" and (tokens[0][1] in signs) else None

    def binary(level: int) -> Tree:
        levels = (("||",), ("&&",), ("==", "!="), ("<", ">", "<=", ">="))
        if level == len(levels):
            return unary()
        left = binary(level + 1)
        while sign := take(*levels[level]):
            left = (sign, left, binary(level + 1))
        return left

    def unary() -> Tree:
        if take("!"):
            return ("not", unary())
        if take("("):
            inner = binary(0)
            if not take(")"):
                raise ValueError(f"a bracket is not closed in {source!r}")
            return inner
        if not tokens or tokens[0][0] == "sign":
            raise ValueError(f"{source!r} ends too early, or has an operator too many")
        kind, word = tokens.pop(0)
        if kind != "name":
            return ("text", word[1:-1].replace("''", "'") if kind == "text" else float(word))
        if word in ("true", "false", "null"):
            return ("text", {"true": True, "false": False, "null": None}[word])
        if take("("):
            arguments = []
            while not take(")"):
                arguments.append(binary(0))
                if not take(",") and tokens[:1] != [("sign", ")")]:
                    raise ValueError(f"a bracket is not closed in {source!r}")
            return ("call", word, *arguments)
        path = [word]
        while take("."):
            if not tokens or tokens[0][0] != "name":
                raise ValueError(f"{source!r} has a dot too many")
            path.append(tokens.pop(0)[1])
        return ("path", *path)

    tree = binary(0)
    if tokens:
        raise ValueError(f"{tokens[0][1]!r} is too much in {source!r}")
    return tree


def written(value: Any) -> str:
    """A value as GitHub writes it into a text."""
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def value(tree: Tree, world: Mapping[str, Any]) -> Any:
    """What an expression comes to, where contexts have these values; functions of status are `world["always()"]` and so on."""
    match tree:
        case ("text", known):
            return known
        case ("path", *parts):
            return functools.reduce(lambda now, part: now.get(part) if isinstance(now, Mapping) else None, parts, world)
        case ("call", "toJSON", argument):
            return json.dumps(value(argument, world))
        case ("call", name):
            return world.get(f"{name}()", name == "always")
        case ("not", argument):
            return not value(argument, world)
        case ("&&", left, right):
            return value(left, world) and value(right, world)
        case ("||", left, right):
            return value(left, world) or value(right, world)
        case ("==" | "!=" as sign, left, right):
            return (written(value(left, world)).lower() == written(value(right, world)).lower()) == (sign == "==")
    raise NotImplementedError(tree)


def filled(text: str, world: Mapping[str, Any]) -> str:
    """A text with its expressions' values in it."""
    return re.sub(r"\$\{\{(.*?)\}\}", lambda found: written(value(parse(found[1]), world)), text, flags=re.DOTALL)


# --- the guards


def names(folder: Path) -> list[str]:
    """Variables and outputs that nothing sets, which actionlint takes as they come."""
    wrong = []
    page = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    for file, flow in load(folder).items():
        text = (folder / file).read_text(encoding="utf-8")
        for kind, name in re.findall(r"\b(vars|secrets)\.(\w+)", text):
            wrong += [f"{file}: docs/ci.md does not name {kind}.{name}"] * (f"`{name}`" not in page)
        for name in re.findall(r"\benv\.(\w+)", text):
            wrong += [f"{file}: nothing sets env.{name}"] * (
                not re.search(rf'^ *{name}: |echo "{name}=', text, re.MULTILINE)
            )
        runs = {
            step["id"]: step.get("run")
            for job in flow["jobs"].values()
            for step in job.get("steps", [])
            if "id" in step
        }
        for step, name in re.findall(r"\bsteps\.([\w-]+)\.outputs\.(\w+)", text):
            if runs.get(step) and not re.search(rf"\b{name}(=|<<)", runs[step]):
                wrong.append(f"{file}: the step {step} does not write {name}")
    return wrong


def _said(program: str, *arguments: str) -> list[str]:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    return [] if done.returncode == 0 else (done.stdout + done.stderr).splitlines()


def rules(folder: Path) -> list[str]:
    """What this project asks of its workflows beyond what the tools ask."""
    wrong = []
    runs: dict[str, str] = {}
    for file, flow in load(folder).items():
        text = (folder / file).read_text(encoding="utf-8")
        wrong += [f"{file}: the first line does not say when it runs"] * (not text.startswith("# Runs "))
        wrong += [f"{file}: rights for the whole workflow"] * (flow.get("permissions") != {})
        wrong += [f"{file}: no concurrency"] * ("concurrency" not in flow and set(flow["on"]) != {"workflow_call"})
        # The shell that is not named goes on after a failure within a pipe.
        wrong += [f"{file}: no shell"] * (flow.get("defaults", {}).get("run", {}).get("shell") != "bash")
        wrong += [
            f"{file}: {name}: code of strangers with rights"
            for name in ("pull_request_target", "workflow_run")
            if name in flow["on"]
        ]
        if "pull_request" in flow["on"]:
            wrong += [f"{file}: a secret where forks' code runs" for _ in re.findall(r"\bsecrets\.", text)]
        for line in text.splitlines():
            if (uses := re.search(r"\buses: (?!\./)(.*)", line)) and not re.fullmatch(
                r"[\w./-]+@[0-9a-f]{40}  # v[\d.]+", uses[1]
            ):
                wrong.append(f"{file}: {uses[1]} is not a revision with its tag behind it")
        for job, body in flow["jobs"].items():
            wrong += [f"{file}: {job} has no permissions of its own"] * ("permissions" not in body)
            wrong += [f"{file}: {job} has no timeout-minutes"] * ("uses" not in body and "timeout-minutes" not in body)
            steps = body.get("steps", [])
            if any(" submit " in step.get("run", "") for step in steps):
                wrong += [f"{file}: {job} leaves its run behind when cancelled"] * all(
                    s.get("if") != "cancelled()" for s in steps
                )
    for block in blocks(folder):
        where = f"{block.file}: {block.name or block.job}"
        wrong += [f"{where}: an expression within a shell block: give it through env"] * ("${{" in block.run)
        wrong += [f"{where} is another block elsewhere"] * (runs.setdefault(block.name, block.run) != block.run)
    return wrong


@functools.cache
def _help(*command: str) -> str | None:
    """What a command of ours answers to --help; None where there is none."""
    done = subprocess.run(
        [sys.executable, *command, "--help"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "200"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout if done.returncode == 0 else None


def commands(folder: Path) -> list[str]:
    """Commands, options and make targets that do not exist."""
    wrong = []
    for block in blocks(folder):
        where = f"{block.file}: {block.name}"
        script = re.sub(r"\\\n\s*", "", block.run)
        wrong += [f"{where}: bash: {line}" for line in _said("bash", "-n", "-c", block.run)]
        # Options that a block collects are those of every command that it gives them to.
        collected = re.findall(r"(?<!\S)--?[a-z][a-z-]*", " ".join(re.findall(r"options\+?=\((.*?)\)", script)))
        for line in re.findall(r"python (.*?)(?:$|[|;]|&&|\))", script, flags=re.MULTILINE):
            words = line.split()
            command = [word for word in words[: 3 if words[0] == "-m" else 1] if word == "-m" or word[0] != "-"]
            known = _help(*command)
            options = [word for word in words if re.fullmatch(r"--?[a-z][a-z-]*", word) and word not in command]
            options += collected if "${options[@]}" in line else []
            if known is None:
                wrong.append(f"{where}: there is no python {' '.join(command)}")
            else:
                wrong += [
                    f"{where}: {command[-1]} has no {o}"
                    for o in options
                    if not re.search(rf"(?<![\w-]){o}(?![\w-])", known)
                ]
        for target in re.findall(r"^\s*make (\S+)", script, flags=re.MULTILINE):
            done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False)
            wrong += [f"{where}: make has no {target}"] * ("No rule to make target" in done.stderr)
    return wrong


def files(folder: Path) -> list[str]:
    """Files of the repository that a workflow names, and that do not exist; choices that are not all files there are."""
    wrong = []
    for file, flow in load(folder).items():
        text = (folder / file).read_text(encoding="utf-8")
        named = re.findall(r"(?<![\w./$-])(?:\./)?((?:pipelines|katib|image|tests|\.github)/[\w.*-][\w./*-]*)", text)
        named += [path for _, path in re.findall(r"^ +(cache-dependency-path|file): (\S+)$", text, re.MULTILINE)]
        named += [path for kind in flow["on"].values() if isinstance(kind, dict) for path in kind.get("paths", [])]
        named += re.findall(r"\b[\w-]+\.(?:lock|toml)\b", text)
        arguments = re.findall(r"^ARG (\w+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
        given = re.findall(r"^ +([A-Z]+)=\$\{\{", text, re.MULTILINE)
        wrong += [f"{file}: the Dockerfile takes no {name}" for name in given if name not in arguments]
        wrong += [f"{file}: there is no {path}" for path in sorted(set(named)) if not any(ROOT.glob(path))]
        inputs = (flow["on"].get("workflow_dispatch") or {}) and flow["on"]["workflow_dispatch"].get("inputs", {})
        there = {
            "experiment": [path.stem for path in sorted((ROOT / "katib").glob("*-*.yaml"))],
            "pipeline": [f"pipelines/{path.name}" for path in sorted((ROOT / "pipelines").glob("*.yaml"))],
        }
        for name in there.keys() & inputs:
            if sorted(inputs[name]["options"]) != sorted(there[name]):
                wrong.append(f"{file}: the choices of {name} are not {', '.join(there[name])}")
    return wrong


GUARDS: dict[str, Callable[[Path], list[str]]] = {guard.__name__: guard for guard in (names, rules, commands, files)}


@pytest.mark.parametrize("guard", GUARDS)
def test_workflows_pass(guard: str) -> None:
    names = "ci cluster dependencies fuzz image pipeline release signed sweep"
    assert sorted(load(FOLDER)) == [f"{name}.yml" for name in names.split()]
    assert GUARDS[guard](FOLDER) == []


@pytest.mark.parametrize(
    ("guard", "file", "old", "new", "said"),
    [
        ("rules", "ci.yml", "    timeout-minutes: 30\n", "", "lint has no timeout-minutes"),
        ("rules", "ci.yml", "ba90b1  # v7.0.1", "ba90b1", "not a revision with its tag"),
        ("rules", "ci.yml", "run: make lint", "run: make ${{ github.sha }}", "an expression within a shell block"),
        ("rules", "ci.yml", "  run:\n    shell: bash", "  run:\n    working-directory: .", "no shell"),
        ("rules", "ci.yml", "toJSON(needs)", "secrets.KFP_TOKEN", "a secret where forks' code runs"),
        ("rules", "pipeline.yml", "permissions: {}", "permissions: read-all", "rights for the whole workflow"),
        ("rules", "pipeline.yml", "if: cancelled()", "if: failure()", "leaves its run behind"),
        ("rules", "sweep.yml", "umask 077", "umask 022", "Log in to the cluster is another block elsewhere"),
        ("names", "pipeline.yml", "vars.KFP_ACCOUNT", "vars.KFP_ACOUNT", "docs/ci.md does not name vars.KFP_ACOUNT"),
        ("names", "pipeline.yml", "|| env.KFP_HOST", "|| env.KPF_HOST", "nothing sets env.KPF_HOST"),
        ("names", "image.yml", "outputs.version", "outputs.versoin", "does not write versoin"),
        ("commands", "ci.yml", "katib check", "katib chek", "there is no python -m katib chek"),
        ("commands", "ci.yml", "run: make lint", "run: make lnit", "make has no lnit"),
        ("commands", "dependencies.yml", "run: make audit", "run: make audti", "make has no audti"),
        ("rules", "dependencies.yml", "48  # v4.9.0", "48", "not a revision with its tag"),
        ("rules", "release.yml", "permissions: {}", "permissions: write-all", "rights for the whole workflow"),
        ("files", "release.yml", "workflows/image.yml", "workflows/imag.yml", "there is no .github/workflows/imag.yml"),
        ("commands", "ci.yml", "exit 1\n          }", "exit 1\n", "bash:"),
        ("commands", "sweep.yml", "--max-trials", "--max-trails", "submit has no --max-trails"),
        ("commands", "sweep.yml", "(--unfinished)", "(--unfinnished)", "delete has no --unfinnished"),
        ("commands", "pipeline.yml", "--terminate", "--terminat", "status has no --terminat"),
        ("commands", "pipeline.yml", "--summary", "--sumary", "submit has no --sumary"),
        ("files", "image.yml", "image/prove.py", "image/proof.py", "there is no image/proof.py"),
        (
            "files",
            "pipeline.yml",
            "workflows/signed.yml",
            "workflows/singed.yml",
            "there is no .github/workflows/singed.yml",
        ),
        ("files", "ci.yml", "requirements-dev.lock", "requirements-dev2.lock", "there is no requirements-dev2.lock"),
        ("files", "image.yml", "REVISION=", "REVISOIN=", "the Dockerfile takes no REVISOIN"),
        ("files", "sweep.yml", "          - images-tpe\n", "", "the choices of experiment are not"),
    ],
)
def test_every_guard_fails_where_it_should(
    guard: str, file: str, old: str, new: str, said: str, tmp_path: Path
) -> None:
    folder = tmp_path / ".github" / "workflows"
    shutil.copytree(FOLDER, folder)
    text = (folder / file).read_text(encoding="utf-8")
    assert old in text
    (folder / file).write_text(text.replace(old, new), encoding="utf-8")
    assert said in "\n".join(GUARDS[guard](folder))


# --- which jobs run when


@pytest.mark.parametrize(
    ("event", "inputs", "variables", "expected"),
    [
        ("push", {}, {"KFP_HOST": "http://pipelines"}, "build image submit comment"),
        ("push", {}, {"KUBE_SERVER": "https://cluster"}, "build image submit comment"),
        ("push", {}, {}, "build"),
        ("schedule", {}, {"KFP_HOST": "http://pipelines"}, "image submit"),
        ("schedule", {}, {}, ""),
        ("workflow_dispatch", {"image": ""}, {"KFP_HOST": "http://pipelines"}, "build image submit comment"),
        ("workflow_dispatch", {"image": "main"}, {"KFP_HOST": "http://pipelines"}, "image submit comment"),
    ],
)
@pytest.mark.parametrize("failing", ["", "build", "submit"])
def test_which_jobs_of_pipeline_run(
    event: str, inputs: dict[str, str], variables: dict[str, str], expected: str, failing: str
) -> None:
    results: dict[str, dict[str, str]] = {}
    before: dict[str, set[str]] = {}
    for job, body in load(FOLDER)["pipeline.yml"]["jobs"].items():
        needed = [body["needs"]] if "needs" in body else []
        world = {
            "github": {"event_name": event},
            "inputs": inputs,
            "vars": variables,
            "needs": {n: results[n] for n in needed},
        }
        condition = body.get("if", "true").replace("${{", "").replace("}}", "")
        before[job] = {*needed, *(other for n in needed for other in before[n])}
        # Without a function of status, GitHub adds success(), which minds a skipped job however far before.
        goes = "()" in condition or all(results[n]["result"] == "success" for n in before[job])
        goes = goes and bool(value(parse(condition), world))
        results[job] = {"result": ("failure" if job == failing else "success") if goes else "skipped"}
    ran = [job for job, found in results.items() if found["result"] != "skipped"]
    assert ran == (["build"] if failing == "build" and "build" in expected else expected.split())


# --- the shell blocks, as GitHub runs them


class Done(NamedTuple):
    """What a block left."""

    code: int
    said: str
    files: dict[str, str]
    calls: list[list[str]]


Execute = Callable[..., Done]


@pytest.fixture
def execute(tmp_path: Path, cache: Path) -> Iterator[Execute]:
    """Runs a block of a workflow: execute("ci.yml", "Set up", {"make": "true"}, github={"sha": "1"}).

    The programs given stand before the real ones; their calls are kept. Contexts are given by name.
    """
    if shutil.which("jq") is None:  # GitHub's machines have it
        warnings.warn("jq is not there: blocks of workflows are not run", stacklevel=1)
        pytest.skip("no jq")
    (tmp_path / "temp").mkdir()
    (tmp_path / "bin").mkdir()
    groups = []

    def call(
        file: str, name: str, programs: Mapping[str, str] | None = None, folder: Path = ROOT, **world: Any
    ) -> Done:
        block = next(each for each in blocks() if (each.file, each.name) == (file, name))
        calls = tmp_path / "calls"
        calls.unlink(missing_ok=True)
        for program, body in (programs or {}).items():
            double = tmp_path / "bin" / program
            note = f"printf '%s\\0' {program} \"$@\" $'\\n' >> '{calls}'"
            double.write_text(f"#!/usr/bin/env bash\n{note}\n{body}\n", encoding="utf-8")
            double.chmod(0o755)
        world["github"] = {"repository": "Owner/Name", "sha": "c0ffee", "run_number": "7", "run_attempt": "2", "run_id": "99",
                           "server_url": "https://github.com", "ref": "refs/heads/main", **world.get("github", {})}  # fmt: skip
        kept = {f"GITHUB_{n}": tmp_path / n for n in ("OUTPUT", "STEP_SUMMARY", "ENV", "PATH")}
        for path in kept.values():
            path.write_text("", encoding="utf-8")
        environment = {
            "PATH": f"{tmp_path / 'bin'}{os.pathsep}{PATH}",
            "HOME": str(tmp_path),
            "PYTHONPATH": str(folder / "src"),
            "ISOTRAIN_CACHE": str(cache),
            "RUNNER_TEMP": str(tmp_path / "temp"),
            **{name: str(path) for name, path in kept.items()},
            **{name: filled(text, world) for name, text in block.env.items()},
        }
        script = tmp_path / "block.sh"
        script.write_text(block.run, encoding="utf-8")
        shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)]
        running = subprocess.Popen(
            shell,
            cwd=folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        groups.append(running.pid)
        said = running.communicate(timeout=60)[0]
        lines = calls.read_text(encoding="utf-8").split("\0\n\0")[:-1] if calls.exists() else []
        return Done(
            running.returncode,
            said,
            {path.name: path.read_text(encoding="utf-8") for path in kept.values()},
            [line.split("\0") for line in lines],
        )

    yield call
    for group in groups:  # what a block left in the background
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean checkout of the code that is here now."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("src", "conf", "contracts", "katib", "pipelines"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "train.py"):
        shutil.copy(ROOT / name, folder)
    _commit(folder)
    return folder


def _commit(folder: Path) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "all", "--allow-empty"]):
        subprocess.run(["git", *command], cwd=folder, check=True, capture_output=True)


@pytest.mark.parametrize("file", ["ci.yml", "pipeline.yml", "sweep.yml"])
def test_set_up(execute: Execute, file: str) -> None:
    done = execute(file, "Set up", {"make": "true"})
    assert (done.code, done.calls) == (0, [["make", ".venv/.installed"]])
    assert done.files["PATH"] == f"{ROOT}/.venv/bin\n"
    assert execute(file, "Set up", {"make": "exit 2"}).code == 2


def test_compiled_pipelines(execute: Execute, checkout: Path) -> None:
    name = "Compiled pipelines are what the code compiles to"
    done = execute("ci.yml", name, folder=checkout)
    assert done.code == 0, done.said
    compiled = sorted((checkout / "pipelines").glob("*.yaml"))[0]
    compiled.write_text(
        compiled.read_text(encoding="utf-8").replace("schemaVersion: 2.1.0", "schemaVersion: 2.0.0"), encoding="utf-8"
    )
    _commit(checkout)
    done = execute("ci.yml", name, folder=checkout)
    assert (done.code, "::error::" in done.said) == (1, True), done.said


@pytest.mark.parametrize(
    "name", ["Pipelines hold what a cluster asks of them", "Experiments hold what a cluster asks of them"]
)
def test_checks(execute: Execute, name: str) -> None:
    done = execute("ci.yml", name)
    assert done.code == 0, done.said


@pytest.mark.parametrize(("results", "code"), [("success success", 0), ("success failure", 1), ("success skipped", 1)])
def test_all_jobs_succeeded(execute: Execute, results: str, code: int) -> None:
    needs = {str(at): {"result": result, "outputs": {}} for at, result in enumerate(results.split())}
    assert execute("ci.yml", "All jobs succeeded", needs=needs).code == code


@pytest.mark.parametrize(("inputs", "options"), [({}, ["60"]), ({"minutes": "5", "seed": "7"}, ["5", "--seed", "7"])])
def test_damaged_inputs(execute: Execute, inputs: dict[str, str], options: list[str]) -> None:
    done = execute("fuzz.yml", "Damaged inputs", {"python": "exit ${CODE:-0}"}, inputs=inputs)
    assert (done.code, done.calls[0][: 4 + len(options)]) == (0, ["python", "-m", "tests.fuzz", "--minutes", *options])
    assert execute("fuzz.yml", "Damaged inputs", {"python": "exit 1"}, inputs=inputs).code == 1
    assert execute("fuzz.yml", "Killed commands", {"python": "exit 1"}).code == 1


def test_names(execute: Execute, checkout: Path) -> None:
    version = re.findall(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[0]
    done = execute("image.yml", "Names", folder=checkout)
    assert done.files["OUTPUT"].startswith(f"name=ghcr.io/owner/name\nversion={version}\ncreated=20")
    assert execute("image.yml", "Names", folder=checkout, github={"ref": f"refs/tags/v{version}"}).code == 0
    assert execute("image.yml", "Names", folder=checkout, github={"ref": "refs/tags/v99"}).code == 1


BUILT = {"names": {"outputs": {"name": "ghcr.io/owner/name"}}, "build": {"outputs": {"digest": IMAGE.split("@")[1]}}}


def test_proof_and_signature(execute: Execute) -> None:
    assert execute("image.yml", "Prove it", {"docker": "exit 1"}, steps=BUILT).code == 1
    signed = execute("image.yml", "Sign it, and its list", {"cosign": "true"}, steps=BUILT)
    assert [call[1] for call in signed.calls] == ["sign", "attest"]
    assert {call[-1] for call in signed.calls} == {IMAGE}


def test_tags(execute: Execute) -> None:
    inspect = f"[ $3 != inspect ] || echo {IMAGE.split('@')[1]}"
    for ref, tag in (("refs/heads/main", "main"), ("refs/tags/v1.0", "v1.0"), ("refs/heads/other", None)):
        done = execute("image.yml", "Tag it", {"docker": inspect}, steps=BUILT, github={"ref": ref})
        assert done.code == 0
        given = [
            word.removeprefix("ghcr.io/owner/name:") for word in done.calls[0] if word.startswith("ghcr.io/owner/name:")
        ]
        assert given == ["c0ffee", *([tag] if tag else [])]
        assert IMAGE in done.files["STEP_SUMMARY"]
    assert execute("image.yml", "Tag it", {"docker": "echo sha256:other"}, steps=BUILT).code == 1


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ("", 0),
        ("main", 0),
        (IMAGE, 0),
        ("ghcr.io/owner/name:v1", 0),
        ("ghcr.io/else/name@sha256:" + "a" * 64, 2),
        ("docker.io/other", 2),
        (IMAGE.split("@")[1], 0),
        ("$(touch pwned)", 0),  # a strange tag, which no registry has
    ],
)
def test_only_signed_images(execute: Execute, asked: str, code: int) -> None:
    programs = {"docker": f"echo {IMAGE.split('@')[1]}", "cosign": "true"}
    name = "Find it, and its signature"
    done = execute("signed.yml", name, programs, inputs={"image": asked}, github={"ref": "refs/heads/a+b"})
    assert done.code == code, done.said
    assert not (ROOT / "pwned").exists()
    if code == 0:
        assert done.files["OUTPUT"] == f"image={IMAGE}\n"
        pattern = done.calls[-1][done.calls[-1].index("--certificate-identity-regexp") + 1]
        workflow = "https://github.com/Owner/Name/.github/workflows"
        for ref, good in (
            ("heads/main", True),
            ("tags/v1.0", True),
            ("heads/a+b", True),
            ("heads/main2", False),
            ("heads/x", False),
        ):
            assert bool(re.search(pattern, f"{workflow}/image.yml@refs/{ref}")) is good
        assert not re.search(pattern, f"{workflow}/other.yml@refs/heads/main")
        refused = execute("signed.yml", name, {**programs, "cosign": "exit 1"}, inputs={"image": asked})
        assert (refused.code, refused.files["OUTPUT"]) == (1, "")


@pytest.mark.parametrize("file", ["pipeline.yml", "sweep.yml"])
def test_log_in(execute: Execute, tmp_path: Path, file: str) -> None:
    variables = {"KUBE_SERVER": "https://cluster:6443", "KUBE_CA": "Q0E=", "KFP_NAMESPACE": "team"}
    name = "Log in to the cluster"
    assert execute(file, name, vars=variables, secrets={"KUBE_TOKEN": "abc"}).code == 0
    config = tmp_path / "temp" / "kubeconfig"
    assert json.loads(config.read_text())["users"][0]["user"] == {"token": "abc"}
    done = execute(file, name, {"curl": """echo '{"value": "fresh"}'"""}, vars=variables)
    assert (done.code, done.files["ENV"]) == (0, f"KUBECONFIG={config}\n")
    assert config.stat().st_mode & 0o077 == 0
    # kubectl's way of asking for a token, without a cluster
    user = json.loads(config.read_text())["users"][0]["user"]["exec"]
    asked = {
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}{PATH}",
        "ACTIONS_ID_TOKEN_REQUEST_URL": "https://token?a=b",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "t",
    }
    answer = subprocess.run([user["command"], *user["args"]], env=asked, capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout)["status"] == {"token": "fresh"}
    assert "https://token?a=b&audience=isotrain" in (tmp_path / "calls").read_text().split("\0")


def test_forwarding(execute: Execute) -> None:
    programs = {"kubectl": "case $1 in create) echo secret-token ;; *) sleep 60 ;; esac", "curl": "true"}
    done = execute("pipeline.yml", "Forward the pipelines' port", programs, vars={"KFP_ACCOUNT": "default-editor"})
    assert done.code == 0, done.said
    assert done.files["ENV"] == "KFP_HOST=http://localhost:8888\nKFP_TOKEN=secret-token\n"
    assert "::add-mask::secret-token" in done.said
    away = execute(
        "pipeline.yml",
        "Forward the pipelines' port",
        {"kubectl": "echo no such service; exit 1", "curl": "sleep 0.3; exit 7"},
    )
    assert (away.code, "no such service" in away.said, away.files["ENV"]) == (7, True, "")


def test_submit(execute: Execute, tmp_path: Path) -> None:
    name = "Submit, and wait"
    world = {"needs": {"image": {"outputs": {"image": IMAGE}}}, "vars": {"KFP_HOST": "http://pipelines"}}
    python = {"python": "echo run=abc-1 http://pipelines/#/runs/abc-1; exit ${CODE:-0}"}
    done = execute("pipeline.yml", name, python, github={"event_name": "push"}, **world)
    expected = ["-m", "pipelines", "submit", "pipelines/train.yaml", "--image", IMAGE, "--version", "c0ffee-7-2"]
    assert (done.code, done.calls[0][1:9]) == (0, expected)
    assert "when=changed" not in done.calls[0]
    nightly = execute("pipeline.yml", name, python, github={"event_name": "schedule"}, **world)
    assert nightly.calls[0][-4:] == ["-p", "when=changed", "-p", "baseline=champion"]
    evil = {"overrides": "optim.lr=1 a=$(touch${IFS}pwned) ;touch pwned *", "parameters": "model=bert data=$PATH"}
    done = execute("pipeline.yml", name, python, inputs=evil, **world)
    assert done.calls[0][-4:] == ["-p", "model=bert", "-p", "data=$PATH"]
    assert done.calls[0][5:10] == ["optim.lr=1", "a=$(touch${IFS}pwned)", ";touch", "pwned", "*"]
    assert not (ROOT / "pwned").exists()
    for asked in ("overrides", "parameters"):
        refused = execute("pipeline.yml", name, python, inputs={asked: "a=b --host=http://elsewhere"}, **world)
        assert (refused.code, refused.calls) == (2, [])
    # Its exit code is that of the command, through the pipe.
    failed = execute("pipeline.yml", name, {"python": "echo run=abc-1; exit 6"}, **world)
    assert failed.code == 6
    ended = execute("pipeline.yml", "End the run that nobody waits for", python, **world)
    assert ended.calls == [["python", "-m", "pipelines", "status", "abc-1", "--terminate"]]
    (tmp_path / "temp" / "submitted").unlink()
    ended = execute("pipeline.yml", "End the run that nobody waits for", python, **world)
    assert (ended.code, ended.calls) == (0, [])


def test_summary(execute: Execute, tmp_path: Path) -> None:
    world = {"needs": {"image": {"outputs": {"image": IMAGE}}}, "job": {"status": "failure"}}
    without = execute("pipeline.yml", "Summary", **world)
    assert "did not come to a summary" in without.files["STEP_SUMMARY"]
    (tmp_path / "temp" / "summary.md").write_text("### Run\n\n" + "x" * 70_000, encoding="utf-8")
    done = execute("pipeline.yml", "Summary", **world)
    assert IMAGE in done.files["STEP_SUMMARY"]
    first, body, last = re.fullmatch(r"(.*?)\n(.*)\n(.*)\n", done.files["OUTPUT"], re.DOTALL).groups()  # type: ignore[union-attr]
    assert first == f"summary<<{last}"
    assert len(body) == 60_000


# A GitHub that has the comments of one pull request in a file.
_GH = r"""
state="$RUNNER_TEMP/comments.json"
[ -f "$state" ] || echo '[{"id": 1, "user": {"login": "somebody"}, "body": "<!-- isotrain pipeline --> mine"}]' > "$state"
method=GET filter=. body=
shift
while [ $# -gt 0 ]; do
  case $1 in
    --method) method=$2; shift ;;
    --jq) filter=$2; shift ;;
    --field) body=${2#body=@}; shift ;;
    --*) ;;
    *) address=$1 ;;
  esac
  shift
done
case $method:$address in
  GET:repos/Owner/Name/commits/c0ffee/pulls) echo '[{"number": 12}]' | jq -r "$filter" ;;
  GET:repos/Owner/Name/issues/12/comments) jq -r "$filter" "$state" ;;
  POST:repos/Owner/Name/issues/12/comments)
    jq --rawfile b "$body" '. + [{id: 2, user: {login: "github-actions[bot]"}, body: $b}]' "$state" > "$state.new" ;;
  PATCH:repos/Owner/Name/issues/comments/2)
    jq --rawfile b "$body" 'map(if .id == 2 then .body = $b else . end)' "$state" > "$state.new" ;;
  *) echo "unexpected $method $address" >&2; exit 1 ;;
esac
[ ! -f "$state.new" ] || mv "$state.new" "$state"
"""


def test_one_comment(execute: Execute, tmp_path: Path) -> None:
    name = "One comment on the pull request that this commit came with"
    for summary in ("first", "second $(touch pwned)", ""):
        done = execute("pipeline.yml", name, {"gh": _GH}, needs={"submit": {"outputs": {"summary": summary}}})
        assert done.code == 0, done.said
        other, ours = json.loads((tmp_path / "temp" / "comments.json").read_text())
        assert other["body"].endswith("mine")
        assert ours["body"] == f"<!-- isotrain pipeline -->\n\n{summary or 'The job on the cluster left no summary.'}\n"
    assert execute("pipeline.yml", name, {"gh": "exit 1"}).code == 1


def test_sweep(execute: Execute) -> None:
    world = {
        "needs": {"image": {"outputs": {"image": IMAGE}}},
        "inputs": {"experiment": "questions-tpe", "max_trials": "4"},
    }
    done = execute("sweep.yml", "Submit, and watch", {"python": "exit ${CODE:-0}"}, **world)
    called = [
        "python",
        "-m",
        "katib",
        "submit",
        "katib/questions-tpe.yaml",
        "--name",
        "questions-tpe-7-2",
        "--image",
        IMAGE,
    ]
    assert (done.code, done.calls[0][:9], done.calls[0][-2:]) == (0, called, ["--max-trials", "4"])
    ended = execute(
        "sweep.yml", "End the search that nobody waits for", {"python": "true"}, vars={"KFP_NAMESPACE": "team"}, **world
    )
    assert ended.calls == [
        ["python", "-m", "katib", "delete", "questions-tpe-7-2", "--unfinished", "--namespace", "team"]
    ]
    best = execute("sweep.yml", "Best trial", {"python": "echo optim.lr=1e-4"}, job={"status": "success"}, **world)
    assert "optim.lr=1e-4" in best.files["STEP_SUMMARY"]
    failed = execute("sweep.yml", "Best trial", {"python": "exit 7"}, job={"status": "failure"}, **world)
    assert (failed.code, failed.calls) == (0, [])


# --- dependencies and releases


def pins(lock: str) -> set[str]:
    """Packages of a lock file, with versions."""
    return set(re.findall(r"^([\w.-]+==\S+)", (ROOT / lock).read_text(encoding="utf-8"), re.MULTILINE))


def test_the_audited_lock_has_all_that_is_installed() -> None:
    recipe = subprocess.run(["make", "--dry-run", "audit"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"pip-audit .*-r (\S+)", recipe) == ["requirements-dev.lock"]
    assert "--require-hashes" in recipe
    for lock in ("requirements.lock", "requirements-image.lock"):
        assert pins(lock) <= pins("requirements-dev.lock")
    assert "pip-audit" in {pin.partition("==")[0] for pin in pins("requirements-audit.lock")}
    # Python versions for which the lock differs are audited: that of the oldest, and a newer one.
    (versions,) = re.findall(r"python: (\[.*\])", (FOLDER / "dependencies.yml").read_text(encoding="utf-8"))
    lock = (ROOT / "requirements-dev.lock").read_text(encoding="utf-8")
    limits = {limit for limit in re.findall(r"python_full_version \S+ '([\d.]+)'", lock) if limit < "3.15"}
    assert (json.loads(versions), limits) == (["3.11", "3.13"], {"3.12"})


def test_changes_of_locks(execute: Execute, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    folder.mkdir()
    lock = folder / "requirements.lock"
    lock.write_text("a==1 \\\n    --hash=sha256:0\nb==1 ; python_version < '3.12' \\\n    --hash=sha256:0\n")
    _commit(folder)
    base = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
    event = {"pull_request": {"base": {"sha": base.stdout.strip()}}}
    name = "Packages that the locks gain and lose"
    (folder / "other").touch()
    _commit(folder)
    done = execute("dependencies.yml", name, folder=folder, github={"event": event})
    assert (done.code, "# no changes" in done.files["STEP_SUMMARY"]) == (0, True), done.said
    lock.write_text("a==2 \\\n    --hash=sha256:1\nb==1 ; python_version < '3.12' \\\n    --hash=sha256:0\nc==1 \\\n")
    _commit(folder)
    done = execute("dependencies.yml", name, folder=folder, github={"event": event})
    assert "```diff\n-a==1\n+a==2\n+c==1\n```" in done.files["STEP_SUMMARY"]
    event["pull_request"]["base"]["sha"] = "0" * 40
    assert execute("dependencies.yml", name, folder=folder, github={"event": event}).code != 0


@pytest.mark.parametrize(("branch", "code"), [("main", 0), ("other", 1)])
def test_only_tags_on_main_are_released(execute: Execute, tmp_path: Path, branch: str, code: int) -> None:
    folder = tmp_path / "repository"
    folder.mkdir()
    _commit(folder)
    subprocess.run(["git", "update-ref", "refs/remotes/origin/main", "HEAD"], cwd=folder, check=True)
    if branch != "main":
        _commit(folder)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
    github = {"sha": head.stdout.strip(), "ref_name": "v1"}
    assert execute("release.yml", "The tag is on main", folder=folder, github=github).code == code


def test_release(execute: Execute, tmp_path: Path, checkout: Path) -> None:
    github = {"ref_name": "v1.0"}
    done = execute("release.yml", "Pack the source", folder=checkout, github=github)
    folder = tmp_path / "temp" / "release"
    assert done.code == 0, done.said
    assert {path.name for path in folder.iterdir()} == {"isotrain-1.0.tar.gz", "SHA256SUMS"}
    subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=folder, check=True, capture_output=True)
    names = subprocess.run(
        ["tar", "-tf", "isotrain-1.0.tar.gz"], cwd=folder, check=True, capture_output=True, text=True
    )
    assert "isotrain-1.0/train.py" in names.stdout.splitlines()
    cosign = """while [ "$1" != --bundle ]; do shift; done; touch "$2\""""
    signed = execute("release.yml", "Sign the files", {"cosign": cosign})
    assert signed.code == 0, signed.said
    assert sorted(call[-1] for call in signed.calls) == ["SHA256SUMS", "isotrain-1.0.tar.gz"]
    assert execute("release.yml", "Sign the files", {"cosign": "exit 1"}).code == 1
    world = {"needs": {"image": {"outputs": {"image": IMAGE}}}, "github": github}
    (made,) = execute("release.yml", "Make the release", {"gh": "true"}, **world).calls
    assert made[1:7] == ["release", "create", "v1.0", "--repo", "Owner/Name", "--verify-tag"]
    assert {Path(word).name for word in made if word.startswith(str(folder))} == {
        f"{name}{end}" for name in ("SHA256SUMS", "isotrain-1.0.tar.gz") for end in ("", ".sigstore.json")
    }
    assert IMAGE in (tmp_path / "temp" / "notes.md").read_text()


def test_jobs_that_write_are_not_those_of_pull_requests() -> None:
    """A release is signed by jobs that only a tag on main reaches, with the permissions that this needs."""
    flow = load(FOLDER)["release.yml"]
    assert flow["on"] == {"push": {"tags": ["v*"]}}
    jobs = flow["jobs"]
    assert (jobs["image"]["needs"], jobs["publish"]["needs"]) == ("check", "image")
    assert jobs["publish"]["permissions"] == {"contents": "write", "id-token": "write", "attestations": "write"}
    assert jobs["image"]["permissions"] == load(FOLDER)["image.yml"]["jobs"]["publish"]["permissions"]
    steps = [step.get("uses", step.get("name", "")).partition("@")[0] for step in jobs["publish"]["steps"]]
    order = ["Pack the source", "sigstore/cosign-installer", "Sign the files", "actions/attest-build-provenance"]
    assert steps[1:] == [*order, "Make the release"]
