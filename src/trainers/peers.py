"""The other processes of a training: how one of them ended, and whether each still lives."""

import atexit
import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from config.errors import ProcessLostError, exception_chain, first_line
from runs.record import Status

ENDING = "ending"  # key of the store
_BEAT_S = 1.0  # between two signs of life
SUSPECT_S = 6.0  # without a sign of life, once a connection to some process is broken
LOST_S = 60.0  # without a sign of life
_FROZEN_S = 5.0  # between two rounds of a thread that was not scheduled
_EXPLAIN_S = 20.0
_CLOSE_S = 5.0  # for which the process waits at its exit for a thread that the store may not answer
# Errors of gloo, NCCL and torch's store about a process that does not answer.
_LOST_TEXT = re.compile(
    r"gloo|NCCL|c10d|Connection (?:closed|reset|was likely closed)|Broken pipe|Timed out waiting", re.IGNORECASE
)
ADVICE = (
    "It was killed (for example for lack of memory) or its machine failed: look at its log and the events of its pod. Start "
    "all processes again with the same command: the training resumes from its last checkpoint"
)


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Attributes:
        rank: the rank that decided.
        status: for run.json.
        exit_code: of all ranks.
        reason: one line for people; None for a run that finished.
        host: machine of the rank that decided.
    """

    rank: int
    status: Status
    exit_code: int
    reason: str | None
    host: str = ""

    def to_json(self) -> str:
        """Return the ending as the value of the store's key."""
        return json.dumps(asdict(self))


class ProcessEnding(BaseException):
    """Ends the main thread, wherever it is, because another process has ended or is lost.

    A BaseException, as KeyboardInterrupt is, so that no `except Exception` catches it.
    """

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.reason or "")
        self.ending = ending
        self.exit_code = ending.exit_code


def read_ending(store: Any) -> Ending | None:
    """Return how the run ended; None as long as no process has ended it."""
    return Ending(**json.loads(bytes(store.get(ENDING)))) if store.check([ENDING]) else None


def is_lost_connection(error: BaseException | None) -> bool:
    """Return whether an error of a collective or of the store means that another process does not answer."""
    return any(
        isinstance(link, RuntimeError) and (type(link).__name__.startswith("Dist") or _LOST_TEXT.search(str(link)))
        for link in exception_chain(error)
    )


@contextlib.contextmanager
def store_errors() -> Iterator[None]:
    """Turn an error of the store into a ProcessLostError."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessLostError(
            f"the process that all others connect to was lost ({first_line(error)}). {ADVICE}"
        ) from error


class Peers:
    """Signs of life of the processes, in their store: one thread writes and reads them, another one judges.

    The second thread is for a store that does not answer because its machine is gone.
    """

    def __init__(
        self,
        store: Any,
        rank: int,
        ranks: Sequence[Mapping[str, Any]],
        server: str,
        post: Callable[[BaseException], None],
    ) -> None:
        """Start to watch.

        Args:
            store: the processes' store; the threads use a connection of their own.
            rank: of this process.
            ranks: `host` and `pid` of every process.
            server: name of the process that serves the store.
            post: raises an exception in the main thread.
        """
        self._store, self._rank, self._ranks, self._server, self._post = store.clone(), rank, ranks, server, post
        self._ending: Ending | None = None
        self._store_error = ""
        moment = time.monotonic()
        self._beats = {number: (b"", moment) for number in range(len(ranks)) if number != rank}
        self._round = moment  # end of the last exchange with the store
        self._stopped, self._closed = threading.Event(), threading.Event()
        self._threads = [
            threading.Thread(target=target, name=f"peers{target.__name__}", daemon=True)
            for target in (self._beat, self._judge)
        ]
        for thread in self._threads:
            thread.start()
        atexit.register(self._close)

    def stop(self) -> None:
        """Do not interrupt the main thread any more; signs of life go on."""
        self._stopped.set()

    def _close(self) -> None:
        """End the threads. The interpreter aborts if one of them returns from the store while it shuts down."""
        self._stopped.set()
        self._closed.set()
        end = time.monotonic() + _CLOSE_S
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def explain(self, error: BaseException) -> BaseException:
        """Return what an error of a collective means: how another process ended, or that it is lost.

        Args:
            error: an error for which `is_lost_connection` holds.
        """
        end = time.monotonic() + _EXPLAIN_S
        while time.monotonic() < end:
            if self._ending is not None:
                return ProcessEnding(self._ending)
            if self._store_error or (lost := self._silent(SUSPECT_S)):
                return ProcessLostError(self._describe(lost if not self._store_error else [], SUSPECT_S))
            time.sleep(0.1)
        return ProcessLostError(f"a process of this training does not answer: {first_line(error)}. {ADVICE}")

    def _beat(self) -> None:
        """Write a sign of life, and read those of the others."""
        numbers, count = sorted(self._beats), 0
        try:
            for number in numbers:  # `multi_get` waits for keys that do not exist
                self._store.compare_set(f"alive/{number}", "", "-")
            while not self._closed.is_set():
                count += 1
                self._store.set(f"alive/{self._rank}", str(count))
                self._ending = self._ending or read_ending(self._store)
                moment = time.monotonic()
                for number, value in zip(numbers, self._store.multi_get([f"alive/{n}" for n in numbers]), strict=True):
                    if self._beats[number][0] != bytes(value):
                        self._beats[number] = bytes(value), moment
                self._round = moment
                self._closed.wait(_BEAT_S)
        except RuntimeError as error:  # its server has ended
            self._store_error = first_line(error)

    def _judge(self) -> None:
        """Interrupt the main thread once another process has ended or is lost."""
        previous = time.monotonic()
        while not self._stopped.wait(_BEAT_S / 2):
            moment = time.monotonic()
            if moment - previous > _FROZEN_S:  # this process did not run, so that it saw no signs
                self._beats = {number: (value, moment) for number, (value, _) in self._beats.items()}
                self._round = moment
            previous = moment
            if self._ending is not None:
                if self._ending.exit_code:
                    self._post(ProcessEnding(self._ending))
                return
            store_lost = bool(self._store_error) or moment - self._round > LOST_S
            if store_lost or (lost := self._silent(LOST_S)):
                if self._stopped.wait(SUSPECT_S / 2 if self._store_error else 0):  # run.json may have its reason
                    return
                reason = self._describe([] if store_lost else lost, LOST_S)
                self._post(ProcessEnding(Ending(self._rank, "failed", ProcessLostError.exit_code, reason)))
                return

    def _silent(self, seconds: float) -> list[int]:
        """Return the ranks without a sign of life for some time."""
        moment = time.monotonic()
        return [number for number, (_, seen_at) in self._beats.items() if moment - seen_at > seconds]

    def _describe(self, lost: Sequence[int], seconds: float) -> str:
        if not lost:
            reason = (
                f"the connection to it is closed ({self._store_error})" if self._store_error else "it does not answer"
            )
            name = f"rank 0 ({self._name(0)})" if self._server == "rank 0" else self._server
            return f"{name} was lost: {reason}. {ADVICE}"
        names = " and ".join(f"rank {number} ({self._name(number)})" for number in lost)
        return f"{names} {'was' if len(lost) == 1 else 'were'} lost: no sign of life for {seconds:g} s. {ADVICE}"

    def _name(self, number: int) -> str:
        return f"process {self._ranks[number].get('pid')} on {self._ranks[number].get('host')}"
