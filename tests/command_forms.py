"""Forms of a trial's command, and what real Katib 0.19 makes of each: tests/test_katib_check.py compares the verdicts of `katib
check`, and tests/cluster asks a Katib."""

LR = "${trialParameters.lr}"
RUN = "hydra.run.dir=/runs/${trialParameters.trialName}"
LINE = f"python train.py optim.lr={LR} {RUN}"
SCRIPT = "/opt/forms/train.sh"
# The command, and whether the trial Succeeded with the right value.
FORMS: dict[str, tuple[list[str], bool]] = {
    "output in a file, then shown": (["sh", "-c", LINE + " > /tmp/log 2>&1 && cat /tmp/log"], True),
    "output in a file, and shown": (["sh", "-c", LINE + " > /tmp/log; cat /tmp/log"], True),
    "export": (["sh", "-c", f"export LR={LR}; python train.py optim.lr=$LR {RUN}"], True),
    "for": (["sh", "-c", f"for lr in {LR}; do python train.py optim.lr=$lr {RUN}; done"], True),
    "if": (["sh", "-c", f"if test -n {LR}; then {LINE}; fi"], True),
    "braces": (["sh", "-c", f"{{ {LINE}; }}"], True),
    "a script": (["bash", SCRIPT, LR, "${trialParameters.trialName}"], True),
    "&& echo": (["sh", "-c", LINE + " && echo x"], False),  # MetricsUnavailable
    "; echo": (["sh", "-c", LINE + "; echo x"], False),  # MetricsUnavailable
    "a line break at the end": (["sh", "-c", LINE + "\n"], False),  # MetricsUnavailable
    "a quote in an argument": ([*LINE.split(), "hydra.sweep.dir=it's"], False),
    "parentheses in an argument": ([*LINE.split(), "hydra.sweep.dir=a(b)"], False),
    "exec": (["sh", "-c", "exec " + LINE], False),
    "a comment": (["sh", "-c", LINE + " # train"], False),
    "/bin/sh -c": (["/bin/sh", "-c", LINE], False),
    "sh -ec": (["sh", "-ec", LINE], False),
}
