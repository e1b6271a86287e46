"""Runs the HTTP service in uvicorn with the limits of its settings."""

import argparse
import gc
import logging
import resource
import socket
from collections.abc import Sequence
from functools import partial

import uvicorn
from fastapi import FastAPI

from api.http.error_handlers import UNAVAILABLE
from api.main import create_app
from api.middleware.h11_protocol import SLOW_CLIENT, ConnectionLimits, LimitedH11Protocol
from model.errors import ModelError
from worker.redis_io.client import check_database, check_url
from worker.settings import Settings, redis_dsn
from worker.start_up import long_lived
from worker.store.open_store import make_data_folder
from worker.telemetry import logs
from worker.telemetry.limited_lines import LimitedLines
from worker.wrong_settings import WRONG_SETTINGS, read_settings

_NOT_HTTP = "Invalid HTTP request received."
"""What uvicorn logs about each of them."""


def server_config(
    app: FastAPI, settings: Settings, *, host: str, port: int, stop_seconds: int = 5
) -> uvicorn.Config:
    """The uvicorn configuration; no access log, because URLs may be private."""
    protocol = partial(LimitedH11Protocol, limits=ConnectionLimits(settings))
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=protocol,  # type: ignore[arg-type] # uvicorn only calls it
        ws="none",
        access_log=False,
        server_header=False,
        log_config=None,
        timeout_graceful_shutdown=stop_seconds,
    )


class Server(uvicorn.Server):
    """uvicorn's server, whose garbage collector leaves alone what was there before any request.

    A full collection visits each object, a million of them after the start: everybody waits for
    a third of a second, again and again while many connections come and go.
    """

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to serve."""
        await super().startup(sockets)
        gc.collect()
        gc.freeze()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m api", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--stop-seconds", type=int, default=5, help="seconds for open requests to finish"
    )
    given = parser.parse_args(arguments)
    try:
        settings = read_settings()
        logs.configure_logging(settings)
        check_url(redis_dsn(settings))
        check_database(redis_dsn(settings))
        make_data_folder(settings)
        with long_lived():
            app = create_app(settings)
    except (ModelError, ValueError) as exc:
        parser.exit(WRONG_SETTINGS, f"error: {exc}\n")
    _limit_lines()
    _allow_many_files()
    config = server_config(
        app, settings, host=given.host, port=given.port, stop_seconds=given.stop_seconds
    )
    Server(config).run()


def _limit_lines() -> None:
    """Nobody fills the disk, or hides other lines, with requests that need no key."""
    for logger in ("uvicorn.error", "api.middleware.h11_protocol", "api.http.error_handlers"):
        limit = LimitedLines(_NOT_HTTP, UNAVAILABLE, *SLOW_CLIENT.values())
        logging.getLogger(logger).addFilter(limit)
    # Without a level of its own, uvicorn takes the trouble to trace each connection.
    logging.getLogger("uvicorn.error").setLevel(logging.getLogger("uvicorn").level)


def _allow_many_files() -> None:
    """Every connection is an open file; the usual limit of 1024 is too close to their number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
