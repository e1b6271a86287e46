"""Starts, watches and stops Redis, API and workers as processes on one machine."""

import contextlib
import errno
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import NoReturn, Self

import httpx2
from pydantic import SecretStr

from cli.service.child import ChildProcess, write_log_line
from cli.service.embedded_redis import EmbeddedRedis, StartError
from cli.service.external_redis import RedisUnusableError, check_redis
from worker.settings import Settings
from worker.wrong_settings import WRONG_SETTINGS

_START_SECONDS = 300.0
_WORD_SECONDS = 15.0
"""How often a start that takes long says what it waits for."""

_API_STOP_SECONDS = 10.0
_SPARE_SECONDS = 10.0
"""Added to the time that a worker may take to drain."""

_POLL_SECONDS = 0.2
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def environment(settings: Settings) -> dict[str, str]:
    """The variables of a child process: ours, with the settings as this process parsed them."""
    own = {
        f"KIRAZURI_{name.upper()}": (
            value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        )
        for name, value in settings
        if value is not None
    }
    return {**os.environ, **own}  # noqa: TID251 - passed on, not read


def find_port(host: str, port: int) -> int:
    """`port` if it is free; a free port for 0.

    Raises:
        StartError: the port is taken, or `host` is not an address of this machine.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.create_server(address[:2], family=family) as listener:
            return int(listener.getsockname()[1])
    except OSError as exc:
        # Of an error of `bind`, Python's own text repeats the address; names have errors below 0.
        number = exc.errno or 0
        reason = os.strerror(number) if number > 0 else exc.strerror or exc
        option = "--port" if number in (errno.EADDRINUSE, errno.EACCES) else "--host"
        raise StartError(
            f"cannot listen on {host}:{port} ({reason}); try another {option}"
        ) from exc


def local_url(host: str, port: int) -> str:
    """The URL at which clients on this machine reach a server that listens on `host`."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


@contextlib.contextmanager
def stop_signals() -> Iterator[None]:
    """Make Ctrl-C, SIGTERM and a closed terminal raise KeyboardInterrupt."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, interrupt) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


class Service:
    """Redis, API, workers and webhook sender. Ready inside the `with` block, stopped after it.

    Raises:
        StartError: on entering, after everything has been stopped again.
    """

    def __init__(self, settings: Settings, *, host: str, port: int, workers: int) -> None:
        self._settings = settings
        self._host = host
        self._port = find_port(host, port)
        self._worker_count = workers
        self._redis: EmbeddedRedis | None = None
        self._api: list[ChildProcess] = []
        self._workers: list[ChildProcess] = []
        self._senders: list[ChildProcess] = []
        self.url = local_url(host, self._port)

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._log("stopping: API, workers, Redis; press Ctrl-C again to kill them")
        self._stop()

    def requires_key(self) -> bool:
        """Whether requests from this machine need an API key."""
        try:
            answer = httpx2.get(f"{self.url}/capabilities", timeout=30, trust_env=False)
        except httpx2.TransportError:
            return False  # it has just ended; `watch` restarts it
        return answer.status_code == httpx2.codes.UNAUTHORIZED

    def watch(self) -> NoReturn:
        """Restart processes that end, until interrupted."""
        while True:
            time.sleep(_POLL_SECONDS)
            if self._redis is not None:
                self._redis.watch()
            for child in (*self._api, *self._workers, *self._senders):
                child.restart_if_ended()

    # -- starting ----------------------------------------------------------------------------

    def _start(self) -> None:
        own = {
            "workers": max(1, self._worker_count),
            "allowed_hosts": self._allowed_hosts(),
            "listen": f"{self._host}:{self._port}",
        }
        settings = self._with_redis().model_copy(update=own)
        variables = environment(settings)
        self._api.append(ChildProcess("api", self._api_command(), variables))
        for number in range(1, self._worker_count + 1):
            arguments = [sys.executable, "-m", "worker"]
            self._workers.append(ChildProcess(f"worker-{number}", arguments, variables))
        if settings.webhook_secret is not None:
            sender = [sys.executable, "-m", "api.webhooks.sender"]
            self._senders.append(ChildProcess("webhooks", sender, variables))
        self._await_ready()

    def _with_redis(self) -> Settings:
        """The settings with the URL of a Redis: the configured one, or the embedded one."""
        if self._settings.redis_url is not None:
            try:
                url = self._settings.redis_url.get_secret_value()
                check_redis(url, self._settings, self._log)
            except RedisUnusableError as exc:
                raise StartError(str(exc)) from exc
            return self._settings
        self._redis = EmbeddedRedis(self._settings.data_dir / "redis", self._log)
        return self._settings.model_copy(update={"redis_url": SecretStr(self._redis.url)})

    def _allowed_hosts(self) -> str:
        """On a loopback address only local names are legitimate; others are DNS rebinding."""
        if self._settings.allowed_hosts or self._host not in _LOOPBACK:
            return self._settings.allowed_hosts
        return "localhost,127.0.0.1,[::1]"

    def _api_command(self) -> Sequence[str]:
        return [sys.executable, "-m", "api", "--host", self._host, "--port", str(self._port)]

    def _await_ready(self) -> None:
        self._log(f"loading the model {self._settings.card} ...")
        now = time.monotonic()
        deadline, next_word = now + _START_SECONDS, now + _WORD_SECONDS
        with httpx2.Client(base_url=self.url, timeout=5, trust_env=False) as client:
            while reason := _not_ready(client):
                self._raise_if_a_child_ended()
                if self._redis is not None:
                    self._redis.watch()
                now = time.monotonic()
                if now > deadline:
                    raise StartError(f"not ready after {_START_SECONDS:.0f} s: {reason}")
                if now > next_word:
                    self._log(f"not ready yet: {reason}")
                    next_word = now + _WORD_SECONDS
                time.sleep(_POLL_SECONDS)

    def _raise_if_a_child_ended(self) -> None:
        for child in (*self._api, *self._workers, *self._senders):
            code = child.exit_code()
            if code == WRONG_SETTINGS:
                raise StartError(f"{child.name} did not start; its line above names the setting")
            if code is not None:
                raise StartError(f"{child.name} ended with code {code}: {child.last_line()}")

    # -- watching and stopping ---------------------------------------------------------------

    def _log(self, what: str) -> None:
        write_log_line("up", what, as_json=self._settings.log_format == "json")

    def _stop(self) -> None:
        """Stop in an order that loses no job. An interrupt kills everything at once."""
        try:
            _end(self._api, _API_STOP_SECONDS)
            _end(self._workers, self._settings.drain_seconds + _SPARE_SECONDS)
            _end(self._senders, self._settings.webhook_timeout_seconds + _SPARE_SECONDS)
        finally:
            for child in (*self._api, *self._workers, *self._senders):
                child.kill()
            if self._redis is not None:
                self._redis.stop()


def _end(children: Sequence[ChildProcess], seconds: float) -> None:
    """Ask all to end, then wait for all, at most `seconds` together."""
    deadline = time.monotonic() + seconds
    for child in children:
        child.terminate()
    for child in children:
        child.wait(deadline - time.monotonic())


def _not_ready(client: httpx2.Client) -> str | None:
    """Why the service is not ready; None if it is."""
    try:
        answer = client.get("/readyz")
    except httpx2.ConnectError:
        return "the API is starting"  # it would be told if it had ended
    except httpx2.TransportError as exc:
        return f"the API does not answer ({exc})"
    if answer.status_code == httpx2.codes.OK:
        return None
    try:
        return str(answer.json()["detail"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return f"something else answers at {client.base_url}"
