"""A process that has imported what takes seconds, and forks one for each command line: `python tests/warm.py SOCKET MODULE ...`.

A command runs in a process of its own, from its first line (runpy), with its own folder, environment, PYTHONPATH and output.
What it spares is importing modules, of which nothing may depend on the environment, and which may start no threads.
"""

import importlib
import json
import os
import runpy
import socket
import sys
import traceback
from typing import Any


def serve(path: str, modules: list[str]) -> None:
    """Takes one request a connection: a line of JSON; answers with the process's id, then with its exit code."""
    for module in modules:
        importlib.import_module(module)
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    while True:
        connection, _ = server.accept()
        if os.fork() == 0:  # one process looks after each command, so that many can run
            server.close()
            asked = json.loads(connection.makefile().readline())
            child = os.fork()
            if child == 0:
                connection.close()
                os._exit(command(asked))
            connection.sendall(f"{child}\n".encode())
            _, status = os.waitpid(child, 0)
            connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
            os._exit(0)
        connection.close()
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def command(asked: dict[str, Any]) -> int:
    """Is the process: its arguments, folder, environment and output as asked."""
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.path[:0] = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path not in ("", *sys.path)]
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(asked[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    modes = ((0, "r", "strict"), (1, "w", "strict"), (2, "w", "backslashreplace"))
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode, 1, errors=errors) for n, mode, errors in modes)
    arguments = asked["arguments"]
    code: Any = 0
    try:
        if arguments[0] == "-m":
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = arguments
            sys.path.insert(0, os.path.dirname(arguments[0]))  # noqa: PTH120 -- as python does it
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as error:
        code = error.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    import atexit
    import threading

    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return int(code or 0)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2:])
