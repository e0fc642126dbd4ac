"""SIGTERM and Ctrl-C as exceptions, from the first line of train.py to the end of the run.

Python runs the handler of a signal between two instructions of the main thread. While that waits inside a library (in a
collective, for a file lock), no handler runs, so a second thread, which the signal wakes, ends the process after a while.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

from config.errors import SignalInterrupt

SIGNALS = (signal.SIGTERM, signal.SIGINT)
SAME_SIGNAL_S = 1.0  # Ctrl-C reaches torchrun and its ranks, and torchrun sends it to the ranks again
REPEAT_S = 5.0  # until the exception is raised again: Python drops one that is raised in a finalizer
STUCK_S = 15.0  # until the process ends without its main thread


class Interrupts:
    """What the signals of a process do.

    Attributes:
        received: number of the first signal, or 0.
        deferred: whether a signal waits for the end of a training step.
        ended: whether the end of the run is decided, so that nothing interrupts it any more.
        on_stuck: called with the exception that the main thread did not handle within STUCK_S.
    """

    def __init__(self) -> None:
        """Start without handlers."""
        self.received = 0
        self.deferred = False
        self.ended = False
        self.on_stuck: Callable[[BaseException], None] = lambda error: None
        self._received_at = 0.0
        self._error: BaseException | None = None  # of another thread
        self._repeat = False
        self._postponed = False  # until an import has ended
        self._pipe = (-1, -1)

    def install(self) -> None:
        """Handle SIGTERM and SIGINT until `restore`. Called in the main thread."""
        self._pipe = os.pipe()
        for end in self._pipe:
            os.set_blocking(end, False)
        for number in SIGNALS:
            signal.signal(number, self.handle)
        signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        # A child process would wake this thread with its own signals.
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
        threading.Thread(target=self._watch, name="interrupts", daemon=True).start()

    def restore(self) -> None:
        """Give signals the effect that they have by default. Called in the main thread."""
        self.ended = True
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._wake()

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal in the main thread.

        Raises:
            SignalInterrupt: unless the signal is deferred, or the run is ending.
        """
        repeat, self._repeat = self._repeat, False
        if self.ended:
            return
        # Extension modules do not expect an exception while they are imported, and some crash.
        importing = self._pipe[0] >= 0 and _is_importing(frame)
        if self._error is not None:
            if repeat and not importing:
                raise self._error
            self._postponed = self._postponed or repeat
            return
        first, moment = not self.received, time.monotonic()
        if not first and not repeat and moment - self._received_at < SAME_SIGNAL_S:
            return
        if first:
            self.received, self._received_at = number, moment
            if self.deferred:
                return
        if importing:
            self._postponed = True
            return
        raise SignalInterrupt(self.received, "interrupted")

    def end_deferral(self) -> None:
        """Do not defer signals any more, and raise one that was deferred and had no effect.

        Raises:
            SignalInterrupt: there is one.
        """
        self.deferred = False
        if self.received:
            raise SignalInterrupt(self.received, "interrupted")

    def post(self, error: BaseException) -> None:
        """Raise an exception in the main thread, also during a training step. Called in another thread."""
        if self._error is None and not self.ended:
            self._error = error
            self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._pipe[1], b"\0")

    def _watch(self) -> None:
        """Interrupt the main thread until it ends the run, and end the process if it does not."""
        number, since, repeated = 0, 0.0, 0.0
        while not self.ended:
            idle = not number and self._error is None
            select.select([self._pipe[0]], [], [], None if idle else 0.2)
            with contextlib.suppress(BlockingIOError):
                number = number or next((byte for byte in os.read(self._pipe[0], 64) if byte in SIGNALS), 0)
            moment = time.monotonic()
            if self._error is None and (not number or self.deferred):
                since = 0.0
            elif not since:
                since = repeated = moment
                if self._error is not None:
                    self._interrupt_main()
            elif moment - since > STUCK_S:
                self._end(self._error or SignalInterrupt(number, "interrupted"))
            elif self._postponed or moment - repeated > REPEAT_S:
                self._postponed = False
                repeated = moment
                self._interrupt_main()

    def _interrupt_main(self) -> None:
        """Run the handler in the main thread; a system call that it waits for ends."""
        main = threading.main_thread().ident
        if main is not None and not self.ended:
            self._repeat = True
            signal.pthread_kill(main, self.received or signal.SIGTERM)

    def _end(self, error: BaseException) -> None:
        """End the process in place of its main thread."""
        if self.ended:
            return
        self.ended = True
        try:
            self.on_stuck(error)
        finally:
            with contextlib.suppress(OSError, ValueError):
                print(f"isotrain: {error}", file=sys.stderr, flush=True)
            os._exit(int(getattr(error, "exit_code", 1)))


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


_installed: list[Interrupts] = []


def install() -> Interrupts:
    """Handle the signals of this process from now on; they are deferred until `end_deferral`."""
    _installed[:] = [Interrupts()]
    _installed[0].deferred = True
    _installed[0].install()
    return _installed[0]


def current() -> Interrupts:
    """Return the interrupts of this process; without `install`, new ones without handlers."""
    return _installed[0] if _installed else Interrupts()
