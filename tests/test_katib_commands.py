"""python -m katib check: a trial's command, judged by running it in a shell as Katib wraps it."""

import random
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from config.errors import InputError
from config.numbers import format_count
from katib import check, documents, shell_command, shell_parser, shell_values
from katib.__main__ import main
from katib.experiment import Experiment, trial_command
from katib.experiment_changes import change_experiment
from katib.run import train_command
from katib.trials import Trial

FIT = "fit --lr=${trialParameters.lr} ${trialParameters.trialName}"
METRIC = "val_f1=0.5"
# A program in place of a training, which prints the metric; python does so only with arguments.
PROGRAMS = {
    "fit": f"#!/bin/sh\necho {METRIC}\n",
    "python": f'#!/bin/sh\n[ $# -eq 0 ] && exit 0\n[ -n "$SLOW" ] && sleep 0.2\necho {METRIC}\n',
    "slow": f"#!/bin/sh\nsleep 0.2\necho {METRIC}\n",
    "serve": "#!/bin/sh\nexit 0\n",
    "broken": "#!/bin/sh\nexit 1\n",
}
SCRIPT = 'echo started\nfit --lr="$1"\n'
# A trial's command (a list of words, or a line for sh -c), and the level of what is found in it. An error is a command
# that never works; a warning one whose last program may print the metric, or not.
FORMS: list[tuple[str | list[str], str]] = [
    # one command
    (FIT, ""),
    (f"  {FIT}  ", ""),
    (["fit", "--lr=${trialParameters.lr}", "${trialParameters.trialName}"], ""),
    (["bash", "-c", FIT], ""),
    (["sh", "-c", "fit", "--lr=${trialParameters.lr}", "--trial=${trialParameters.trialName}"], ""),
    (["bash", "-c", "python", "fit.py", "--lr=${trialParameters.lr}", "${trialParameters.trialName}"], ""),
    ([FIT], ""),
    (["fit", "--lr ${trialParameters.lr}", "--trial ${trialParameters.trialName}"], ""),
    (["fit", "'--name=a b'", "${trialParameters.lr}", "${trialParameters.trialName}"], ""),
    (["fit", '--name="a b"', "${trialParameters.lr}", "${trialParameters.trialName}"], ""),
    (["fit", "${trialParameters.lr}", "${trialParameters.trialName}", "|", "tee", "log"], ""),
    (["bash", "run.sh", "${trialParameters.lr}", "${trialParameters.trialName}"], ""),
    (["sh", "./run.sh", "${trialParameters.lr}", "${trialParameters.trialName}"], ""),
    (["/bin/bash", "-e", "run.sh", "${trialParameters.lr}", "${trialParameters.trialName}"], ""),
    (["/bin/sh", "-c", f"'{FIT}'"], ""),
    (["/bin/bash", "-c", f'"{FIT}"'], ""),
    (["env", "A=1", "fit", "${trialParameters.lr}", "${trialParameters.trialName}"], ""),
    (f"bash -ec '{FIT}'", ""),
    (f"bash -c '{FIT}; true'", ""),
    (f"A=1 {FIT}", ""),
    (["bash", "-c", f"time {FIT}"], ""),
    (f"nice {FIT}", ""),
    (f"eval '{FIT}'", ""),
    (f"env A=1 {FIT}", ""),
    ("fit \\\n  --lr=${trialParameters.lr} \\\n  ${trialParameters.trialName}", ""),
    (FIT + " \\\n", ""),
    (FIT + ' "#1" a#b', ""),
    (FIT + " \"a;b (c) & d\" '|' \\;", ""),
    (FIT + " {a,b}", ""),
    # redirections of the last command: Katib's follows and counts
    (FIT + " > log", ""),
    (FIT + " 2>&1", ""),
    (FIT + " >> log 2>&1", ""),
    (FIT + " < run.sh", ""),
    (FIT + " 2> /dev/null", ""),
    (FIT + " >&2", ""),
    # pipes
    (FIT + " | tee log", ""),
    (FIT + " 2>&1 | tee log > /dev/null", ""),
    (FIT + " |\n grep val", ""),
    (f"echo start | {FIT}", ""),
    (f"{FIT} | while read row; do echo $row; done", ""),
    # commands before the training
    (f"cd . && {FIT}", ""),
    (f"cd .; {FIT}", ""),
    (f"set -e\ncd .\n{FIT}", ""),
    (f"# comment; with 'a quote\n{FIT}", ""),
    (f"cd .  # comment\n{FIT}", ""),
    (f"mkdir -p a && cp run.sh a/run.sh && {FIT}", ""),
    (f"[ -f run.sh ] || exit 1; {FIT}", ""),
    (f"test -f none && exit 0; {FIT}", ""),
    (f"cd . || exit\n{FIT}", ""),
    (f"test -f none || {FIT}", ""),
    (f"exec 2>&1; {FIT}", ""),
    (f"serve & {FIT}", ""),
    (f"serve &\nsleep 0.01; {FIT}; ", "error"),
    ("export LR=${trialParameters.lr} T=${trialParameters.trialName}; python fit.py", ""),
    ("LR=${trialParameters.lr}; T=${trialParameters.trialName}; fit --lr=$LR $T", ""),
    ("export LR=${trialParameters.lr} && fit $LR ${trialParameters.trialName}", ""),
    ("echo 'lr: ${trialParameters.lr} # ${trialParameters.trialName}' > conf.yaml && python fit.py conf.yaml", ""),
    ("sed -i s/LR/${trialParameters.lr}/ run.sh; fit ${trialParameters.trialName}", ""),
    ("cat <<EOF > conf.yaml\nlr: ${trialParameters.lr}\nname: ${trialParameters.trialName}\nEOF\nfit conf.yaml", ""),
    ("cat > conf.yaml <<-'EOF'\n\tlr: ${trialParameters.lr} ${trialParameters.trialName}\n\tEOF\nfit conf.yaml", ""),
    ("python prepare.py ${trialParameters.lr} && fit ${trialParameters.trialName}", ""),
    # compound commands
    (f"{{ {FIT}; }}", ""),
    (f"{{ {FIT}; echo done; }}", ""),
    (f"{{ echo start; {FIT}; }} > log", ""),
    (f"( {FIT} )", ""),
    (f"({FIT}; echo done)", ""),
    (f"(cd . && exec {FIT})", ""),
    (f"cd . && (exec {FIT}) | cat", ""),
    (f"for i in 1 2; do {FIT} --fold=$i; done", ""),
    (f"for i in 1 2\ndo\n{FIT}\ndone", ""),
    ("for lr in ${trialParameters.lr}; do fit $lr ${trialParameters.trialName}; done", ""),
    (f"if test -f run.sh; then {FIT}; else echo no; fi", ""),
    (f"if {FIT}; then echo done; else exit 1; fi", ""),
    (f"if ! {FIT}; then exit 1; fi", ""),
    (f"i=0; while [ $i -lt 2 ]; do i=$((i+1)); {FIT}; done", ""),
    (f"until {FIT}; do sleep 1; done", ""),
    ("case ${trialParameters.lr} in 0*) fit --small ${trialParameters.trialName};; *) fit;; esac", ""),
    (f"case a in (a|b) {FIT} ;; esac", ""),
    (f"run() {{ {FIT}; }}; run", ""),
    (f"run() {{ {FIT}; }}\nrun 2>&1 | tee log", ""),
    ("run() { fit --lr=$1; }; run ${trialParameters.lr} ${trialParameters.trialName}", ""),
    (["bash", "-c", f"function run {{ {FIT}; }}; run"], ""),
    (["bash", "-c", f"if [[ -n a && (b = b) ]]; then {FIT}; fi"], ""),
    (["bash", "-c", f"a=(1 2); {FIT} ${{a[0]}} ${{a[0]:0:1}}"], ""),
    (["bash", "-c", f"for ((i=0;i<2;i++)); do {FIT}; done"], ""),
    (["bash", "-c", "fit ${trialParameters.trialName} <<< ${trialParameters.lr}"], ""),
    (["bash", "-c", f"{FIT} &> log"], ""),
    (f"{{ {FIT} & wait; }}", ""),
    (f"({FIT} & serve & wait)", ""),
    ("{ python - <<EOF\nprint(${trialParameters.lr}, '${trialParameters.trialName}')\nEOF\n}", ""),
    ("if true; then python - <<EOF\n${trialParameters.lr} ${trialParameters.trialName}\nEOF\nfi", ""),
    ("echo $(fit ${trialParameters.lr} ${trialParameters.trialName})", ""),
    ('OUT=$(fit ${trialParameters.lr} ${trialParameters.trialName}); echo "$OUT"', ""),
    ("OUT=`fit ${trialParameters.lr} ${trialParameters.trialName}`; echo $OUT", ""),
    # a file in between
    (f"{FIT} > log && cat log", ""),
    (f"{FIT} > log 2>&1; cat log", ""),
    (f"{FIT} | tee log; tail -n 1 log", ""),
    (f"{FIT} > out/log && grep val out/log", ""),
    (f"{FIT} --out=out/m.txt > out/m.txt && cat out/*", ""),
    (f"{FIT} > log || exit 1\ncat log", ""),
    (f"{{ {FIT} > log; cat log; }}", ""),
    # another program prints at the end: perhaps the metric
    (f"{FIT} && python report.py", "warning"),
    (f"{FIT}; python report.py", "warning"),
    (f"{FIT}\npython report.py", "warning"),
    (f"{FIT} && echo {METRIC}", "warning"),
    (f"{FIT} && serve", "warning"),
    (f"{{ {FIT} > log; python report.py; }}", "warning"),
    (f"broken ${{trialParameters.lr}} || {FIT}", "warning"),
    # what never works
    (f"{FIT} && echo done", "error"),
    (f"{FIT}; echo done", "error"),
    (f"{FIT}\necho done", "error"),
    (f"{FIT} || true", "error"),
    (f"{FIT} || python other.py", "error"),
    (f"{FIT} || echo failed", "error"),
    (f"{FIT}; exit 0", "error"),
    (f"{FIT}; exit $?", "error"),
    (f"{FIT} && exit 0", "error"),
    (f"if {FIT}; then exit 0; fi", "error"),
    (f"{FIT} & wait", "error"),
    (f"{FIT} & wait $!", "error"),
    ("slow ${trialParameters.lr} ${trialParameters.trialName} &", "error"),
    ("(slow ${trialParameters.lr} ${trialParameters.trialName} &)", "error"),
    (f"{FIT};", "error"),
    (f"{FIT} &&", "error"),
    (f"{FIT} |", "error"),
    (f"{FIT}\n", "error"),
    (f"{FIT}\n  ", "error"),
    (f"{FIT} &&\n", "error"),
    (f"{FIT} # comment", "error"),
    (f"cd .\n{FIT} # comment", "error"),
    ("python - <<EOF\nprint(${trialParameters.lr}, '${trialParameters.trialName}')\nEOF", "error"),
    ("python - <<EOF\nprint(${trialParameters.lr}, '${trialParameters.trialName}')\nEOF\n", "error"),
    (f"exec {FIT}", "error"),
    (f"cd . && exec {FIT}", "error"),
    (f"if true; then exec {FIT}; fi", "error"),
    (f"A=1 exec {FIT}", "error"),
    (f"! {FIT}", "error"),
    (f"run() {{ {FIT}; }}", "error"),
    (f"{{ {FIT} > log; }}", "error"),
    (f"({FIT} > log 2>&1)", "error"),
    (f"for i in 1 2; do {FIT} >> log; done", "error"),
    (f"{FIT} > log; rm log", "error"),
    (f"{FIT}; cd ..", "error"),
    ("export LR=${trialParameters.lr}; fit ${trialParameters.trialName}; sleep 0.01", "error"),
    (f"{FIT} (a)", "error"),
    (f"if true; then {FIT}", "error"),
    (f"{FIT} ${{oc.env:HOME}}", "error"),
    (f'{FIT} "${{a.b}}"', "error"),
    (f"{FIT} &> log", "error"),  # dash puts it in the background
    (["/bin/sh", "-c", "python fit.py ${trialParameters.lr} ${trialParameters.trialName}"], "error"),
    (["bash", "-lc", "python fit.py ${trialParameters.lr} ${trialParameters.trialName}"], "error"),
    (["sh", "-ec", "python fit.py ${trialParameters.lr} ${trialParameters.trialName}"], "error"),
    (["/usr/bin/env", "bash", "-c", "python fit.py ${trialParameters.lr} ${trialParameters.trialName}"], "error"),
    (["python", "-c", "print(${trialParameters.lr})", "${trialParameters.trialName}"], "error"),
]


def experiment(command: str | list[str], **choices: list[str]) -> Experiment:
    """An Experiment with the parameter lr and others whose values are lists."""
    words = ["sh", "-c", command] if isinstance(command, str) else command
    names = {"lr": {"min": "0.001", "max": "0.01"}, **{name: {"list": row} for name, row in choices.items()}}
    kinds = {name: "double" if name == "lr" else "categorical" for name in names}
    trial = {"name": "trialName", "reference": "${trialSpec.Name}"}
    parameters = [{"name": name, "parameterType": kinds[name], "feasibleSpace": row} for name, row in names.items()]
    pod = {"restartPolicy": "Never", "containers": [{"name": "training", "image": "a:1", "command": words}]}
    value = {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": "search"},
        "spec": {
            "objective": {"type": "maximize", "objectiveMetricName": "val_f1"},
            "algorithm": {"algorithmName": "random"},
            "maxTrialCount": 4,
            "parameters": parameters,
            "trialTemplate": {
                "primaryContainerName": "training",
                "trialParameters": [*({"name": name, "reference": name} for name in names), trial],
                "trialSpec": {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": pod}}},
            },
        },
    }
    (document,) = documents.parse(yaml.safe_dump(value, width=10_000), "search.yaml")
    return Experiment(document)


def command_findings(search: Experiment) -> dict[str, str]:
    """Level and message of what is found in the command."""
    rows = [row for row in check.check_experiment(search) if row.code in ("K206", "K313")]
    return {row.level: row.message for row in rows}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("programs")
    for name, text in PROGRAMS.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def run_wrapped(
    words: list[str],
    folder: Path,
    programs: Path,
    variables: Mapping[str, str] | None = None,
    collector: str = "StdOut",
) -> tuple[bool, str]:
    """Run a trial's command as a pod does; return whether it is marked as completed, and the metrics file's text."""
    (folder / "katib").mkdir()
    (folder / "out").mkdir()
    (folder / "run.sh").write_text(SCRIPT)
    metrics = folder / "katib" / "metrics.log"
    shell, option, line = shell_command.wrap(words, collector, str(metrics), False)
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": "/none", **(variables or {})}
    command = [shell, option, shell_command.expand(line, environment)]
    devnull = subprocess.DEVNULL
    done = subprocess.run(
        command, cwd=folder, env=environment, stdin=devnull, stdout=devnull, stderr=devnull, check=False
    )
    text = metrics.read_text() if metrics.exists() else ""
    marks = [path.read_text() for path in (folder / "katib").glob("*.pid")]
    return done.returncode == 0 and marks == ["completed\n"], text


@pytest.mark.parametrize(("command", "level"), FORMS, ids=[f"{i}-{row[0]}"[:60] for i, row in enumerate(FORMS)])
def test_commands_are_judged_as_a_shell_runs_them(
    command: str | list[str], level: str, tmp_path: Path, programs: Path
) -> None:
    search = experiment(command)
    findings = command_findings(search)
    completed, text = run_wrapped(trial_command(search, "search-a", {"lr": "0.001"}), tmp_path, programs)
    works = completed and METRIC in text
    if level == "error":
        assert not works, (text, findings)
        assert set(findings) == {"error"}
    elif level == "":
        assert works, (completed, text)
        assert findings == {}
    else:
        assert set(findings) == {"warning"}


# With a File collector only the end is appended, and the program's output goes where it wants.
FILE_FORMS = [
    (FIT, ""),
    (f"{FIT} && echo done", ""),
    (f"{FIT}; echo done", ""),
    (f"{{ {FIT} > log; }}", ""),
    (f"{FIT} > log 2>&1 && python report.py", ""),
    (f"# comment\n{FIT}", ""),
    (f"{FIT}\n", "error"),
    (f"{FIT};", "error"),
    (f"{FIT} &", "error"),
    (f"{FIT} # comment", "error"),
    (f"exec {FIT}", "error"),
    (f"{FIT}; exit 0", "error"),
    (f"! {FIT}", "error"),
    ("python - <<EOF\n${trialParameters.lr} ${trialParameters.trialName}\nEOF", "error"),
    (["/bin/sh", "-c", "broken ${trialParameters.lr} ${trialParameters.trialName}"], "error"),
]


@pytest.mark.parametrize(("command", "level"), FILE_FORMS, ids=[str(row[0])[:60] for row in FILE_FORMS])
def test_commands_with_a_file_collector(command: str | list[str], level: str, tmp_path: Path, programs: Path) -> None:
    search = experiment(command)
    path = {"path": "/m/metrics.log", "kind": "File"}
    search.value["spec"]["metricsCollectorSpec"] = {"collector": {"kind": "File"}, "source": {"fileSystemPath": path}}
    words = trial_command(search, "search-a", {"lr": "0.001"})
    completed, _ = run_wrapped(words, tmp_path, programs, collector="File")
    assert set(command_findings(search)) == ({level} if level else set())
    assert completed == (level == "") or isinstance(command, list)  # an inner shell that does nothing may complete


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (FIT, ""),
        (f"cd . && {FIT}", ""),
        (f"cat run.sh | wc; {FIT}", ""),
        (f"{FIT} | tee log", "a pipe has several"),
        (f"{{ {FIT} | tee log; }}", "a pipe has several"),
        (f"serve & {FIT}", "in the background"),
    ],
)
def test_early_stopping_ends_one_process(command: str, message: str) -> None:
    search = experiment(command)
    search.value["spec"]["earlyStopping"] = {"algorithmName": "medianstop"}
    assert message in command_findings(search).get("error", "")
    assert bool(message) == bool(command_findings(search))


def test_the_forms_are_many() -> None:
    assert len({str(command) for command, _ in FORMS}) == len(FORMS) >= 84


TOKENS = (
    *(
        "fit",
        "a",
        "b=1",
        ";",
        "&&",
        "||",
        "|",
        "&",
        "\n",
        "if",
        "then",
        "else",
        "elif",
        "fi",
        "{",
        "}",
        "(",
        ")",
        "while",
    ),
    *("until", "do", "done", "for i in 1 2", "case x in", "x)", "a|b)", ";;", "esac", "'q r'", '"d $x"', "> f", "2>&1"),
    *("< g", "<<E\nb\nE\n", "$(x y)", "`z`", "#c", "!", "f()", "${x:-1}", "$((1+2))", "\\\n"),
)
LINES = (
    *("if fit ; then a ; fi", "for i in 1 2 ; do fit ; done", "{ fit ; }", "( fit )", "f() { fit ; }", "fit & a ; b"),
    *(
        "case x in a|b) fit ;; *) a ;; esac",
        "while a ; do b=1 ; done",
        "fit | a && b || fit",
        "if ( a ) then { b ; } fi",
    ),
)


def test_lines_are_refused_where_sh_refuses_them() -> None:
    """Lines with tokens taken out and put in: `sh -n` parses a line and runs nothing."""
    random_ = random.Random(7)
    mismatches = []
    for _ in range(250):
        tokens = random_.choice([*LINES, " ".join(random_.choices(TOKENS, k=5))]).split(" ")
        for _ in range(random_.randint(0, 2)):
            index = random_.randrange(len(tokens))
            tokens[index : index + random_.randint(0, 1)] = random_.choice([[], [random_.choice([*TOKENS, *LINES])]])
            tokens = tokens or ["fit"]
        text = " ".join(tokens)
        done = subprocess.run(["sh", "-n", "-c", text], capture_output=True, check=False)
        try:
            shell_parser.parse(text)
            accepted = True
        except shell_parser.ShellSyntaxError:
            accepted = False
        if accepted != (done.returncode == 0):
            mismatches.append(text)
    assert mismatches == []


# --- values of lists

VALUES = [
    *("[128, 64]", "a b", "a  b", " a", "a>b", "a<b", "a;b", "a|b", "a&b", "(a)", "a)", "a\u00a0b"),
    *("$HOME", "$X", "${X}", "${a.b}", "$(date)", "`date`", "$$", "a$$b", "5$", "$", "'a b'", "it's", "''", ""),
    *(
        "*",
        "*.sh",
        "a?b",
        "r*.sh",
        "~",
        "~/a",
        "a~",
        "#a",
        "a#b",
        "{a,b}",
        "{1..3}",
        "{a:1}",
        "a,b",
        "[1,2]",
        "!",
        "%a",
    ),
    *("-1", "1e-05", "a=b", "=", "relu", "é", "if", "&", "a&&b", ">"),
]
# A command with the placeholder of the value, and what its program receives in its place.
CONTEXTS: list[tuple[str | list[str], str]] = [
    ("dump --x=${trialParameters.v}", "--x={}"),
    ("dump ${trialParameters.v}", "{}"),
    ("dump '${trialParameters.v}'", "{}"),
    ("dump '--x=${trialParameters.v}'", "--x={}"),
    ('dump "--x=${trialParameters.v}"', "--x={}"),
    ("cd . && dump --x='[${trialParameters.v}]'", "--x=[{}]"),
    ("if true; then dump a=${trialParameters.v}; fi", "a={}"),
    (["dump", "--x=${trialParameters.v}"], "--x={}"),
    (["dump", "${trialParameters.v}"], "{}"),
    (["dump", "'${trialParameters.v}'"], "{}"),
    (["bash", "-c", "dump ${trialParameters.v}"], "{}"),
    (["bash", "-c", "dump 'x=${trialParameters.v}'"], "x={}"),
    (["/bin/sh", "-c", "'dump ${trialParameters.v}'"], "{}"),
    ("export V='${trialParameters.v}'; dump $V", "{}"),
    ("export V='${trialParameters.v}'; dump \"x=$V\"", "x={}"),
    ('export V=${trialParameters.v}; dump "x=$V"', "x={}"),
]
DUMP = '#!/bin/sh\nfor word; do printf "%s\\n" "$word"; done\n'


def with_value(words: list[str], value: str) -> list[str]:
    return [word.replace("${trialParameters.v}", value) for word in words]


@pytest.mark.parametrize(("command", "expected"), CONTEXTS, ids=[str(row[0])[:50] for row in CONTEXTS])
def test_values_that_the_shell_changes_are_found(
    command: str | list[str], expected: str, tmp_path: Path, programs: Path
) -> None:
    (programs / "dump").write_text(DUMP)
    (programs / "dump").chmod(0o755)
    search = experiment(command, v=VALUES)
    changed = shell_values.changed_values(search)["v"]
    mismatches = []
    for index, value in enumerate(VALUES):
        (folder := tmp_path / str(index)).mkdir()
        (folder / "a1b").touch()
        completed, text = run_wrapped(with_value(search.command, value), folder, programs)
        meaning = value[1:-1] if len(value) > 1 and value[0] == value[-1] == "'" else value
        arrives = completed and text == expected.format(meaning) + "\n"
        if arrives == (value in changed):
            mismatches.append((value, text))
    assert mismatches == []


@pytest.mark.parametrize("command", ["dump --x=${trialParameters.v}", ["dump", "${trialParameters.v}"]])
@pytest.mark.parametrize(
    "values",
    [["[128, 64]", "[64]"], ["a>b"], ["$X", "a"], ["`date`"], ["it's"], ["a b", "it's"], ["(a)", "*", "#b"], ["a$X'b"]],
)
def test_the_quotes_that_are_proposed_work(
    command: str | list[str], values: list[str], tmp_path: Path, programs: Path
) -> None:
    (programs / "dump").write_text(DUMP)
    (programs / "dump").chmod(0o755)
    search = experiment(command, v=values)
    (row,) = [row for row in check.check_experiment(search) if row.code == "K206"]
    assert (row.level, "the shell changes the value" in row.message) == ("error", True)
    if values == ["a$X'b"]:
        assert "plain names" in row.fix
        return
    match = re.fullmatch(r"write (.*) in place of (.*) in the command", row.fix)
    assert match, row.fix
    words = [word.replace(match[2], match[1]) for word in search.command]
    mended = experiment(words, v=values)
    assert [row for row in check.check_experiment(mended) if row.code == "K206"] == []
    for index, value in enumerate(values):
        (folder := tmp_path / str(index)).mkdir()
        completed, text = run_wrapped(with_value(words, value), folder, programs)
        assert (completed, text.removeprefix("--x=")) == (True, value + "\n")


@pytest.mark.parametrize("command", ["dump --x=${trialParameters.v}", ["dump", "--x=${trialParameters.v}"]])
def test_braces_are_a_warning_where_sh_may_be_bash(command: str | list[str]) -> None:
    rows = [
        row for row in check.check_experiment(experiment(command, v=["a", "{a,b}"])) if row.code in ("K206", "K309")
    ]
    assert [(row.code, "{a,b}" in row.message) for row in rows] == [("K309", True)]
    search = experiment("dump '--x=${trialParameters.v}'", v=["a", "{a,b}"])
    assert not {row.code for row in check.check_experiment(search)} & {"K206", "K309"}


def test_without_a_wrapper_only_a_shell_changes_values() -> None:
    for words, count in ((["dump", "${trialParameters.v}"], 0), (["/bin/bash", "-ec", "dump ${trialParameters.v}"], 1)):
        search = experiment(words, v=["[128, 64]", "a>b"])
        search.value["spec"]["metricsCollectorSpec"] = {"collector": {"kind": "Push"}}
        assert [row.code for row in check.check_experiment(search)].count("K206") == count


def test_annotations_of_the_template_are_values_too() -> None:
    search = experiment("dump ${trialParameters.v}", v=["a"])
    template = search.value["spec"]["trialTemplate"]
    template["trialSpec"]["metadata"] = {"annotations": {"team": "a b"}}
    template["trialParameters"][1]["reference"] = "${trialSpec.Annotations[team]}"
    assert "'a b'" in command_findings(search)["error"]


def test_a_fixed_value_that_the_shell_changes_is_refused() -> None:
    search = experiment("python train.py data.path=${trialParameters.v} optim.lr=${trialParameters.lr}", v=["/a", "/b"])
    assert change_experiment(search, ["data.path=/c"]).parameters[0].name == "lr"
    with pytest.raises(InputError, match=r"changes the value '/my data'.*write '"):
        change_experiment(search, ["data.path=/my data"])
    quoted = experiment(
        "python train.py data.path='${trialParameters.v}' optim.lr=${trialParameters.lr}", v=["/a", "/b"]
    )
    changed = change_experiment(quoted, ["data.path=/my data"])
    assert shell_command.train_overrides(changed.command) == [
        *("data.path=/my data", "optim.lr=${trialParameters.lr}", "data.path=/my data")
    ]


# --- the command line of train.py

CALLS: list[tuple[str | list[str], dict[str, str]]] = [
    ("python train.py a=${trialParameters.v} 'b=[1, 2]' \"c=$HOME\"", {"HOME": "/none"}),
    ("export LR=${trialParameters.v}; python train.py a=$LR b=${LR}1", {}),
    ('LR=${trialParameters.v} && X="$LR $LR"; python -u train.py a=$X "b=$X"', {}),
    (["python", "train.py", "a=$(LR)", "b='$(LR)'"], {"LR": "${trialParameters.v}"}),
    (["python", "train.py", "a=$LR", "'b=$LR'", "c=1"], {"LR": "${trialParameters.v}"}),
    ("cd . && { nice python ./train.py a=${trialParameters.v} > log; cat log; }", {}),
    (["/bin/bash", "-c", "'python train.py a=${trialParameters.v} b=1'"], {}),
    (["env", "A=1", "python", "train.py", "a=\\[1]", "b=${trialParameters.v}"], {}),
]


@pytest.mark.parametrize(("command", "environment"), CALLS, ids=[str(row[0])[:50] for row in CALLS])
def test_overrides_are_those_that_train_receives(
    command: str | list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "python").write_text(DUMP)
    (programs / "python").chmod(0o755)
    for index, value in enumerate(["0.1", "[1,2]", "'a b'"]):
        words = with_value(["sh", "-c", command] if isinstance(command, str) else command, value)
        container = {
            "env": [{"name": k, "value": v.replace("${trialParameters.v}", value)} for k, v in environment.items()]
        }
        variables = shell_command.environment(container)
        expanded = [shell_command.expand(word, variables) for word in words]
        call = shell_command.train_call(expanded, variables)
        (folder := tmp_path / str(index)).mkdir()
        _, text = run_wrapped(expanded, folder, programs, variables)
        received = [word for word in text.splitlines() if word != "-u" and not word.endswith("train.py")]
        assert call is not None
        assert [(word.text, word.is_known) for word in call] == [(word, True) for word in received]


def test_without_katibs_wrapper_words_are_passed_as_they_are() -> None:
    words = ["python", "train.py", "data.path='/a b'", "seed=$X"]
    assert shell_command.train_overrides(words, wrapped=False) == words[2:]
    assert shell_command.append_overrides(words, ["a=b c"], wrapped=False) == [*words, "a=b c"]
    line = ["/bin/bash", "-ec", "cd . && python train.py a=1"]
    assert shell_command.train_overrides(line, wrapped=False) == ["a=1"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["python", "train.py", "a=1", "|", "tee", "log"], ["python", "train.py", "a=1", "'b=c d'", "|", "tee", "log"]),
        (["python", "train.py"], ["python", "train.py", "'b=c d'"]),
        (
            ["sh", "-c", "python train.py a=1 > log; cat log"],
            ["sh", "-c", "python train.py a=1 'b=c d' > log; cat log"],
        ),
        (["sh", "-c", "{ python train.py a=1; }"], ["sh", "-c", "{ python train.py a=1 'b=c d'; }"]),
        (["sh", "-c", "python train.py", "a=1"], ["sh", "-c", "python train.py a=1 'b=c d'"]),
    ],
)
def test_overrides_are_added_to_the_call(words: list[str], expected: list[str]) -> None:
    assert shell_command.append_overrides(words, ["b=c d"]) == expected


FOREIGN = [
    (["python", "/app/train.py", "--lr=${trialParameters.lr}"], "takes options"),
    (["python", "/app/train.py", "--lr", "${trialParameters.lr}", "--epochs=1"], "takes options"),
    (["python", "train.py", "-l", "${trialParameters.lr}", "model=bert"], "takes options"),
    (["python", "train.py", "${trialParameters.lr}"], "without overrides"),
    (["python3.11", "-u", "src/train.py", "data.csv", "--lr=${trialParameters.lr}"], "takes options"),
    ("LR=${trialParameters.lr} python train.py", "without overrides"),
    ("export LR=${trialParameters.lr}; accelerate launch train.py --config a.yaml", "takes options"),
    ("torchrun --nproc-per-node=2 train.py --lr ${trialParameters.lr} | tee log", "takes options"),
    ("python other.py --script train.py lr=${trialParameters.lr}", "does not call train.py"),
]


@pytest.mark.parametrize(("command", "message"), FOREIGN, ids=[str(row[0])[:50] for row in FOREIGN])
def test_another_train_is_not_ours(command: str | list[str], message: str) -> None:
    search = experiment(command)
    rows = [row for row in check.check_experiment(search) if row.code.startswith("K4")]
    assert [(row.code, row.level) for row in rows] == [("K400", "note")]
    assert message in rows[0].message
    trial = Trial("search-a", 0, "Succeeded", {"lr": "0.1"})
    assert train_command(search, trial, []) == "lr=0.1"


def test_overrides_are_not_added_to_another_train() -> None:
    with pytest.raises(InputError, match="another train"):
        shell_command.append_overrides(["python", "train.py", "--lr=1"], ["seed=1"])


def test_its_output_is_buffered_if_another_train_is_called() -> None:
    search = experiment(["python", "train.py", "--lr=${trialParameters.lr}"])
    search.value["spec"]["earlyStopping"] = {"algorithmName": "medianstop"}
    assert "K308" in {row.code for row in check.check_experiment(search)}


def test_what_only_the_trial_knows_is_not_composed() -> None:
    run_dir = "hydra.run.dir=/runs/${trialParameters.trialName}"
    search = experiment(f"python train.py optim.lr=${{trialParameters.lr}} seed=$SEED {run_dir}")
    rows = [(row.code, row.level, row.message) for row in check.check_experiment(search) if row.code.startswith("K4")]
    note = "seed=${SEED} was not checked: its value is known only where the command runs"
    assert ("K400", "note", note) in rows
    assert "K401" not in {row[0] for row in rows}
    search = experiment(f"export LR=${{trialParameters.lr}}; python train.py optim.lr=$LR {run_dir}")
    assert not {row.code for row in check.check_experiment(search)} & {"K206", "K313", "K400", "K401", "K404"}
    search = experiment(f"export LR=${{trialParameters.lr}}; python train.py optim.rl=$LR {run_dir}")
    assert "K401" in {row.code for row in check.check_experiment(search)}


# --- counts


def test_refused_experiments_are_counted_apart_from_their_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, warned, bad = (experiment(command).value for command in (FIT, f"{FIT}; python report.py", f"{FIT}; echo x"))
    bad["spec"]["maxTrialCount"] = 0
    paths = [tmp_path / f"{name}.yaml" for name in ("one", "two", "torn")]
    paths[0].write_text(yaml.safe_dump_all([good, warned, bad]))
    paths[1].write_text(yaml.safe_dump(bad))
    paths[2].write_text("a: [1")

    def summary(*arguments: str) -> tuple[int, str]:
        code = main(["check", *arguments])
        return code, capsys.readouterr().err.strip()

    warnings = len([row for row in check.check_experiment(experiment(FIT)) if row.level == "warning"])
    code, text = summary(str(paths[0]), str(paths[1]))
    assert (code, text) == (2, f"4 Experiments checked and 2 refused, 4 errors, {4 * warnings + 1} warnings")
    assert summary(str(paths[1])) == (2, f"1 Experiment checked and 1 refused, 2 errors, {warnings} warnings")
    assert summary(str(paths[2])) == (2, "0 Experiments checked, 1 error, 0 warnings")
    code, text = summary("--strict", str(paths[0]))
    assert (code, text.split(",")[0]) == (2, "3 Experiments checked and 3 refused")


@pytest.mark.parametrize(("count", "text"), [(0, "0 errors"), (1, "1 error"), (2, "2 errors"), (1200, "1,200 errors")])
def test_nouns_agree_with_their_number(count: int, text: str) -> None:
    assert format_count(count, "error") == text
