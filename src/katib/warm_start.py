"""`--warm`: trials forked from a process that has imported what a training imports (trainers/fork_server.py).

A trial is forked only if that cannot make a difference: its command begins with `python train.py` of this installation,
and its environment is that of the first trial. Others start as without `--warm`, and a message says why.
"""

import contextlib
import ctypes
import glob
import json
import os
import re
import shlex
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from config.files import PROJECT
from katib import shell_command
from katib.processes import kill_stray_processes
from katib.shell_parser import Command, ShellSyntaxError, Word, parse

TRIAL_VARIABLE = "KATIB_TRIAL_NAME"  # the only variable in which the environments of trials may differ
ANSWER_LIMIT = 300.0  # seconds for an answer, imports included
_SERVER = PROJECT / "src" / "trainers" / "fork_server.py"
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of Linux: orphans among the descendants become children of this process


class ColdStartError(Exception):
    """Why a trial is not forked."""


class ForkedProcess(psutil.Process):
    """The process in the place of a trial's shell, a child of this one that this one did not start."""

    def poll(self) -> int | None:
        """Return the exit code, or the negative number of a signal; None while it runs."""
        if not hasattr(self, "exit_code"):
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid == 0:
                return None
            self.exit_code = os.waitstatus_to_exitcode(status)
        return self.exit_code


class WarmStart:
    """Starts trials by forking a process, which it starts for the first of them."""

    def __init__(self, log: Path, show_message: Callable[[str], None]) -> None:
        """Start nothing yet.

        Args:
            log: file for the output of the process that is forked.
            show_message: called with each reason, once, why trials are not forked.
        """
        self.log, self.show_message = log, show_message
        self.messages: set[str] = set()
        self.server: subprocess.Popen[bytes] | None = None
        self.connection: Any = None
        self.conditions: dict[str, Any] = {}  # of the first trial, which those of others must equal
        self.forks = 0  # of this server
        self.is_disabled = False
        # Its read end shows a trial that this process has ended, however it did.
        self.lifeline = os.pipe()

    def start(
        self,
        commands: Sequence[Sequence[str]],
        environments: Sequence[Mapping[str, str]],
        output: Path,
        folder: Path,
        cores: Sequence[int],
    ) -> ForkedProcess | None:
        """Start a trial.

        Args:
            commands, environments: of its processes.
            output: file for the output of its shell.
            folder: its working directory.
            cores: of its processes; empty for all.

        Returns:
            The process in the place of its shell; None if it must be started as without `--warm`.
        """
        if self.is_disabled:
            return None
        try:
            if len(commands) > 1:
                raise ColdStartError("a trial has several processes")
            request = read_command(commands[0], environments[0], folder)
            request |= {"name": environments[0][TRIAL_VARIABLE], "output": str(output), "cores": list(cores)}
            return self._fork(request, dict(environments[0]), folder)
        except ColdStartError as error:
            self._show_once(f"--warm: trials start cold: {error}")
            return None

    def close(self) -> None:
        """End the process, and trials that still run."""
        self._end_server()
        for end in self.lifeline:
            os.close(end)

    def _fork(self, request: dict[str, Any], environment: dict[str, str], folder: Path) -> ForkedProcess:
        conditions = {"the shell": request["shell"], "the name of Python": request["words"][0]}
        conditions["the number of cores"] = len(request["cores"])
        conditions |= {name: value for name, value in environment.items() if name != TRIAL_VARIABLE}
        self.conditions = self.conditions or conditions
        for name in sorted({*conditions, *self.conditions}):
            if conditions.get(name) != self.conditions.get(name):
                raise ColdStartError(f"{name} is not that of the first trial")
        while True:
            if self.server is None:
                self._start_server(request, environment, folder)
            try:
                pid = self._ask(request)
            except ColdStartError as error:
                kill_stray_processes(request["name"])  # forked, but without an answer
                self._end_server()
                if not self.forks:
                    self.is_disabled = True
                    raise
                self.show_message(f"--warm: {error}; it is started again")
            else:
                self.forks += 1
                return ForkedProcess(pid)

    def _start_server(self, request: Mapping[str, Any], environment: Mapping[str, str], folder: Path) -> None:
        if not hasattr(os, "pidfd_open") or ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0) != 0:
            self.is_disabled = True
            raise ColdStartError("this system is not Linux 5.3 or newer")
        self.connection, server_end = socket.socketpair()
        self.connection.settimeout(ANSWER_LIMIT)
        # The length of the command line and of the name is the space in which trials show theirs (`ps`).
        padding = "-" * (len(request["line"]) + 256)
        files = (server_end.fileno(), self.lifeline[0])
        line = shlex.join([request["words"][0], str(_SERVER), *map(str, files), padding])
        with self.log.open("ab") as log:
            self.server = subprocess.Popen(
                [*request["shell"], f"exec {line}"],
                cwd=folder,
                env={**environment, TRIAL_VARIABLE: "-" * len(request["name"])},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=files,
                start_new_session=True,
            )
        server_end.close()
        self.forks = 0
        self._send({"overrides": request["words"][2:]})

    def _ask(self, request: dict[str, Any]) -> int:
        """Return the process id of a forked trial.

        Raises:
            ColdStartError: there is none.
        """
        self._send(request)
        try:
            answer = json.loads(self.connection.makefile("rb").readline() or "{}")
        except TimeoutError as error:
            raise ColdStartError(f"no answer within {ANSWER_LIMIT:g} s; see {self.log}") from error
        except OSError:
            answer = {}
        if obstacle := answer.get("obstacle"):
            raise ColdStartError(obstacle)
        if not answer.get("pid"):
            raise ColdStartError(f"the process that is forked has ended{self._ending()}; see {self.log}")
        return int(answer["pid"])

    def _send(self, message: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):  # it has ended, so that no answer comes
            self.connection.sendall(json.dumps(message).encode() + b"\n")

    def _ending(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self.server.wait(5) if self.server else 0
            return f" with {signal.Signals(-code).name}" if code < 0 else f" with exit code {code}"
        return ""

    def _end_server(self) -> None:
        if self.server is not None:
            self.server.kill()
            self.server.wait()
            self.connection.close()
            self.server = None

    def _show_once(self, message: str) -> None:
        if message not in self.messages:
            self.messages.add(message)
            self.show_message(message)


def read_command(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """Split a trial's shell line into the call of train.py and the rest.

    Args:
        command: shell, its option -c, and the line.
        environment: the trial's.
        folder: its working directory.

    Returns:
        `shell`, `line`; `words` of the call; `redirects`, pairs of a descriptor and a path or descriptor; `rest`.

    Raises:
        ColdStartError: the line begins with something else, or the shell would change its words in a way that only it knows.
    """
    line = command[2]
    try:
        pipelines = parse(line, shell_command.is_bash(command))
    except ShellSyntaxError as error:
        raise ColdStartError(f"the shell refuses the command: {error}") from error
    pipeline = pipelines[0]
    call = pipeline.commands[0]
    names = [word.keyword for word in call.words[:2]]
    if (
        len(pipeline.commands) > 1
        or pipeline.negated
        or pipeline.background
        or call.kind != "simple"
        or len(names) < 2
        or not re.fullmatch(r"python[\d.]*", names[0])
        or not _is_train_script(folder / names[1])
    ):
        raise ColdStartError("the command does not begin with a call of this installation's train.py: python train.py")
    words = names + [text for word in call.words[2:] for text in _expand(word, environment, folder)]
    redirects = [_read_redirect(call, index, environment, folder) for index in range(len(call.redirects))]
    end = max([call.end, *(redirect.target.end for redirect in call.redirects)])
    return {"shell": list(command[:2]), "line": line, "words": words, "redirects": redirects, "rest": line[end:]}


def _is_train_script(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return path.samefile(PROJECT / "train.py")
    return False


def _expand(word: Word, environment: Mapping[str, str], folder: Path) -> list[str]:
    fields = word.expand(environment)
    texts = [
        part.text if part.kind == "text" else environment.get(part.text, "") for part in word.parts if not part.quoted
    ]
    is_pattern = any(re.search(r"[*?\[]", text) for text in texts)
    is_unknown = any(re.search(r"[{~]", text) for text in texts)
    # A pattern to which no file belongs stays as it is: `a=[1]`.
    if fields is None or is_unknown or (is_pattern and any(glob.glob(field, root_dir=folder) for field in fields)):  # noqa: PTH207 -- absolute patterns, too
        raise ColdStartError(f"only the shell knows what {word.text} becomes; quote it")
    return fields


def _read_redirect(call: Command, index: int, environment: Mapping[str, str], folder: Path) -> tuple[int, str | int]:
    redirect = call.redirects[index]
    if redirect.operator == ">" and redirect.descriptor in ("", "1", "2"):
        fields = _expand(redirect.target, environment, folder)
        if len(fields) == 1:
            return int(redirect.descriptor or 1), fields[0]
    if redirect.operator == ">&" and redirect.descriptor in ("1", "2") and redirect.target.text in ("1", "2"):
        return int(redirect.descriptor), int(redirect.target.text)
    raise ColdStartError(
        f"the redirection {redirect.descriptor}{redirect.operator}{redirect.target.text} is the shell's"
    )
