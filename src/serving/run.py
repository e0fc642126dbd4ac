"""A server process: loads the model, answers, follows the registry, and ends in order on SIGTERM."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import TypeVar

import uvicorn

from config.errors import UnreachableError, first_line
from serving.app import Server, create_app
from serving.model import ServedModel

T = TypeVar("T")

logger = logging.getLogger(__name__)


class _Uvicorn(uvicorn.Server):
    """Without uvicorn's handling of signals, which ends the process by the signal itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


Load = Callable[[str | None], ServedModel | None]


def serve(
    load: Load,
    host: str,
    port: int,
    server: Server,
    drain: float,
    poll: float | None = None,
    load_last: Callable[[], ServedModel] | None = None,
) -> None:
    """Answer requests until SIGTERM or SIGINT.

    The server lives at once, and is ready when the model is loaded and has answered an example.

    Args:
        load: loads the model, on a thread; with the version that is served, it returns None if there is no other.
        host: address to listen on.
        port: port, 0 for a free one.
        server: the server without a model.
        drain: seconds for which requests are still accepted after a signal, while the server is not ready; those that
            are under way then end first.
        poll: seconds between two calls of `load`, whose model takes the place of the present one; None for one call.
        load_last: with `poll`: loads the model if the registry does not answer at the start.

    Raises:
        InputError: the model cannot be loaded.
        OSError: the address is in use.
    """
    asyncio.run(_serve(load, host, port, server, drain, poll, load_last))


async def _serve(
    load: Load,
    host: str,
    port: int,
    server: Server,
    drain: float,
    poll: float | None,
    load_last: Callable[[], ServedModel] | None,
) -> None:
    config = uvicorn.Config(
        create_app(server), lifespan="off", log_config=None, access_log=False, server_header=False,
        timeout_graceful_shutdown=int(server.limits.timeout) + 1,
    )  # fmt: skip
    sockets = [_listen(host, port)]
    host, port = sockets[0].getsockname()[:2]
    web = _Uvicorn(config)
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    serving = loop.create_task(web.serve(sockets))
    stopping = loop.create_task(ended.wait())
    loading = loop.create_task(_load_first(load, poll, load_last))
    following: asyncio.Task[None] | None = None
    try:
        await asyncio.wait({loading, stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            model = loading.result()
            server.start(model)
            address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            logger.info(
                "%s version %s answers at %s (%s/docs describes the addresses)",
                model.name, model.version, address, address,
            )  # fmt: skip
            if poll is not None:
                following = loop.create_task(_follow(server, load, poll))
            await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
        server.accepts = False
        if stopping.done() and drain:
            await asyncio.sleep(drain)
    finally:
        for task in (stopping, loading, following):
            if task is not None:
                task.cancel()
        web.should_exit = True
        await serving
        server.close()
        # Threads that load a model, or predict what nobody waits for, cannot be interrupted.
        if _threads or (server.service is not None and server.service.batcher.is_busy):
            logging.shutdown()
            os._exit(0)


async def _load_first(load: Load, poll: float | None, load_last: Callable[[], ServedModel] | None) -> ServedModel:
    """Load the first model. If it is followed, and the registry does not answer, load the last one, or wait."""
    warned = False
    while True:
        try:
            model = await _in_thread(partial(load, None))
        except UnreachableError as error:
            if poll is None:
                raise
            if load_last is not None:
                with contextlib.suppress(UnreachableError):
                    model = await _in_thread(load_last)
                    logger.warning("%s; version %s, which was served before, answers meanwhile", error, model.version)
                    return model
            if not warned:
                logger.warning("%s; not ready until it does", error)
                warned = True
            await asyncio.sleep(poll)
        else:
            assert model is not None
            return model


async def _follow(server: Server, load: Load, poll: float) -> None:
    """Load a model beside the present one when the registry names another, and exchange them."""
    problem = ""
    while True:
        await asyncio.sleep(poll)
        assert server.service is not None
        version = server.service.model.version
        try:
            model = await _in_thread(partial(load, version))
        except Exception as error:
            if str(error) != problem:
                problem = str(error)
                logger.warning("version %s goes on answering: %s", version, problem or first_line(error))
            continue
        if problem:
            logger.info("the registry is followed again")
            problem = ""
        if model is not None:
            server.start(model)
            logger.info("version %s answers in place of %s", model.version, version)


_threads: set[threading.Thread] = set()  # which load a model


def _in_thread(call: Callable[[], T]) -> Awaitable[T]:
    """Call a function on a thread for which neither asyncio nor Python waits at the end."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def resolve(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]
        else:
            future.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = call()
        except BaseException as raised:
            error = raised
        _threads.discard(threading.current_thread())
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(resolve, result, error)

    thread = threading.Thread(target=run, name="load", daemon=True)
    _threads.add(thread)
    thread.start()
    return future


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=2048)
    # asyncio sets it only for sockets of getaddrinfo: an answer of two segments would wait 40 ms for an acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
