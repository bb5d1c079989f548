"""uvicorn, that does not wait for streams which have no end."""

import contextlib
import gc
import socket
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE


class Server(uvicorn.Server):
    """Ends the event streams of the application before it waits for requests that are being answered."""

    def __init__(self, app: FastAPI, **options: Any) -> None:
        super().__init__(uvicorn.Config(app, log_config=None, access_log=False, **options))
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what has been asked, and take no more."""
        self._app.state.streams.close()
        await super().shutdown(sockets)


def run(app: FastAPI, **options: Any) -> None:
    """Serve until a signal says to stop."""
    server = Server(app, **options)
    gc.collect()
    gc.freeze()  # to look at all that has been imported, again and again, stops every request for a quarter of a second
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(STARTUP_FAILURE)
