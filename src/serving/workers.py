"""Processes that predict: several use the cores of a machine better than the threads of one."""

import contextlib
import logging
import multiprocessing
import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from config.errors import InputError
from serving.model import ServedModel

logger = logging.getLogger(__name__)

Row = dict[str, Any]
_RESTART_S, _MAX_RESTART_S = 2.0, 60.0  # between two attempts
_ATTEMPTS = 2  # of a batch whose process is killed


class WorkerError(Exception):
    """A prediction that failed in a worker process; the message is its traceback, or says that it was killed."""


@dataclass
class _Worker:
    process: Any
    connection: Any


def load_in_workers(load: Callable[[], ServedModel], count: int, threads: int) -> ServedModel:
    """Load a model in several processes, which end when the model is dropped.

    Args:
        load: loads the model in each process; it can be pickled.
        count: number of processes.
        threads: CPU threads of each.

    Returns:
        The model, whose `predict` may be called on `count` threads. A process that is killed is started again, and its
        batch is predicted by another one.

    Raises:
        InputError: the model cannot be loaded.
        WorkerError: a process was killed.
    """
    workers = _Workers(load, threads)
    model = workers.start(count)
    return replace(model, predict=workers.predict, parallel=count, is_alive=workers.is_alive)


class _Workers:
    def __init__(self, load: Callable[[], ServedModel], threads: int) -> None:
        self._load, self._threads = load, threads
        self._idle: queue.Queue[_Worker] = queue.Queue()
        self._count = 0  # of the processes that live
        self._lock = threading.Lock()

    def is_alive(self) -> bool:
        """Whether there is a process."""
        return self._count > 0

    def start(self, count: int) -> ServedModel:
        workers = [self._start() for _ in range(count)]
        models = [self._wait(worker) for worker in workers]  # all load at the same time
        for worker in workers:
            self._add(worker)
        return models[0]

    def _add(self, worker: _Worker) -> None:
        with self._lock:
            self._count += 1
        self._idle.put(worker)

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> list[Row]:
        """Return a prediction for each row, of a process that is idle.

        Raises:
            InputError: an input cannot be read.
            WorkerError: the prediction failed, or killed several processes.
        """
        for _ in range(_ATTEMPTS):
            worker = self._idle.get()
            try:
                worker.connection.send(rows)
                kind, value = worker.connection.recv()
            except (EOFError, OSError):
                self._replace(worker)
                continue
            self._idle.put(worker)
            if kind == "predictions":
                predictions: list[Row] = value
                return predictions
            raise InputError(value) if kind == "input" else WorkerError(value)
        raise WorkerError(f"{_ATTEMPTS} processes were killed while they predicted these inputs")

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        connection, other = context.Pipe()
        process = context.Process(target=_work, args=(other, self._load, self._threads), name="worker", daemon=True)
        process.start()
        other.close()
        return _Worker(process, connection)

    def _wait(self, worker: _Worker) -> ServedModel:
        """Wait until a process has loaded the model, and return what describes it."""
        try:
            kind, value = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join(5)
            raise WorkerError(f"a process that loads the model was killed ({_exit(worker)})") from None
        if kind == "input":
            raise InputError(value)
        if kind != "model":
            raise WorkerError(value)
        model: ServedModel = value
        return model

    def _replace(self, worker: _Worker) -> None:
        """Start a process in place of one that was killed."""
        with self._lock:
            self._count -= 1
        worker.connection.close()
        worker.process.join(5)
        logger.warning("process %s was killed (%s) and is started again", worker.process.pid, _exit(worker))
        threading.Thread(target=self._restart, name="restart", daemon=True).start()

    def _restart(self) -> None:
        pause = _RESTART_S
        while True:
            worker = self._start()
            try:
                self._wait(worker)
            except Exception as error:  # such as a folder that was deleted
                worker.process.kill()
                if pause == _RESTART_S:
                    logger.warning("a process could not be started again, and is tried later: %s", error)
            else:
                self._add(worker)
                logger.info("process %s has loaded the model in its place", worker.process.pid)
                return
            time.sleep(pause)
            pause = min(2 * pause, _MAX_RESTART_S)


def _exit(worker: _Worker) -> str:
    code = worker.process.exitcode
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


def _work(connection: Any, load: Callable[[], ServedModel], threads: int) -> None:
    """Predict what comes, until the connection is closed. Runs in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the server's requests end first
    import torch

    torch.set_num_threads(threads)
    with contextlib.suppress(EOFError, OSError):  # the server has ended, or dropped the model
        model = None
        try:
            model = load()
            answer: Any = ("model", replace(model, predict=_unavailable, is_alive=bool))
        except InputError as error:
            answer = ("input", str(error))
        except Exception:
            answer = ("error", traceback.format_exc())
        connection.send(answer)
        while model is not None:
            rows = connection.recv()
            try:
                answer = ("predictions", model.predict(rows))
            except InputError as error:
                answer = ("input", str(error))
            except Exception:
                answer = ("error", traceback.format_exc())
            connection.send(answer)


def _unavailable(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    raise NotImplementedError
