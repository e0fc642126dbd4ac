"""A server process: loads the model, answers, and ends in order on SIGTERM."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn

from serving.app import Limits, Server, create_app
from serving.model import ServedModel

logger = logging.getLogger(__name__)


class _Uvicorn(uvicorn.Server):
    """Without uvicorn's handling of signals, which ends the process by the signal itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(load: Callable[[], ServedModel], host: str, port: int, limits: Limits, drain: float) -> None:
    """Answer requests until SIGTERM or SIGINT.

    The server lives at once, and is ready when the model is loaded and has answered an example.

    Args:
        load: loads the model, on a thread.
        host: address to listen on.
        port: port, 0 for a free one.
        limits: what is accepted.
        drain: seconds for which requests are still accepted after a signal, while the server is not ready; those that
            are under way then end first.

    Raises:
        InputError: the model cannot be loaded.
        OSError: the address is in use.
    """
    asyncio.run(_serve(load, host, port, limits, drain))


async def _serve(load: Callable[[], ServedModel], host: str, port: int, limits: Limits, drain: float) -> None:
    server = Server(limits)
    config = uvicorn.Config(
        create_app(server), lifespan="off", log_config=None, access_log=False, server_header=False,
        timeout_graceful_shutdown=int(limits.timeout) + 1,
    )  # fmt: skip
    sockets = [_listen(host, port)]
    address = sockets[0].getsockname()
    web = _Uvicorn(config)
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    serving = loop.create_task(web.serve(sockets))
    loading = loop.create_task(asyncio.to_thread(load))
    stopping = loop.create_task(ended.wait())
    try:
        await asyncio.wait({loading, stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            model = loading.result()
            server.start(model)
            logger.info(
                "%s version %s answers at http://%s:%d (/docs describes the addresses)",
                model.name,
                model.version,
                *address[:2],
            )
            await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
        server.ready = False
        if stopping.done() and drain:
            await asyncio.sleep(drain)
    finally:
        stopping.cancel()
        web.should_exit = True
        await serving


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048)
