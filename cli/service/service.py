"""The whole service on one machine: Redis, API and workers as processes with one life.

Knows how they are started, watched and ended; nothing of what they do.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import NoReturn, Self, TextIO

import httpx2
from pydantic import SecretStr

from cli.service.child import ChildProcess, show
from cli.service.embedded_redis import StartError, lock_folder, start_redis
from model.card import load_card
from model.errors import ModelError
from worker.redis_io.server import RedisServer
from worker.settings import Settings

_START_SECONDS = 300.0
_API_STOP_SECONDS = 10.0
_SPARE_SECONDS = 10.0
"""What a worker gets beyond its time for draining."""

_POLL_SECONDS = 0.2
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def environment(settings: Settings) -> dict[str, str]:
    """The variables of a child process: ours, with every setting as this process understood it."""
    own = {
        f"KIRAZURI_{name.upper()}": (
            value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        )
        for name, value in settings
        if value is not None
    }
    return {**os.environ, **own}  # noqa: TID251 - handed on, not read


def find_port(host: str, port: int) -> int:
    """`port` if it can be listened on; for 0 a free one.

    Raises:
        StartError: it is taken, or the host is not one of this machine's.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.create_server(address[:2], family=family) as listener:
            return int(listener.getsockname()[1])
    except OSError as exc:
        reason = exc.strerror or exc
        raise StartError(f"cannot listen on {host}:{port} ({reason}); try another --port") from exc


def local_url(host: str, port: int) -> str:
    """Where a client on this machine reaches a server that listens on `host`."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


@contextlib.contextmanager
def stop_signals() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and a closed terminal all raise KeyboardInterrupt."""

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
    """Starts on entering and is ready then; on leaving ends all, Redis last.

    Raises:
        StartError: on entering; what was started by then has been ended again.
    """

    def __init__(self, settings: Settings, *, host: str, port: int, workers: int) -> None:
        self._settings = settings
        self._host = host
        self._port = find_port(host, port)
        self._worker_count = workers
        self._redis: RedisServer | None = None
        self._lock: TextIO | None = None
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
        self._tell("stopping: API, workers, Redis; once more Ctrl-C to end them at once")
        self._stop()

    def asks_for_key(self) -> bool:
        """Whether it wants an API key even from this machine."""
        try:
            answer = httpx2.get(f"{self.url}/capabilities", timeout=30, trust_env=False)
        except httpx2.TransportError:
            return False  # it has just gone, and `watch` brings it back
        return answer.status_code == httpx2.codes.UNAUTHORIZED

    def watch(self) -> NoReturn:
        """Bring back what crashes, until interrupted."""
        while True:
            time.sleep(_POLL_SECONDS)
            self._revive_redis()
            for child in (*self._api, *self._workers, *self._senders):
                child.revive()

    # -- starting ----------------------------------------------------------------------------

    def _start(self) -> None:
        from model.policy.policy import load_policy

        try:
            load_card(self._settings.card)
            load_policy(self._settings.policy_file)
        except ModelError as exc:
            raise StartError(str(exc)) from exc
        own = {
            "torch_threads": self._threads(),
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
        """The settings with a Redis in them: the one they name, or an embedded one."""
        if self._settings.redis_url is not None:
            return self._settings
        folder = self._settings.data_dir / "redis"
        self._lock = lock_folder(folder)
        self._redis = start_redis(folder)
        return self._settings.model_copy(update={"redis_url": SecretStr(self._redis.url)})

    def _threads(self) -> int:
        """Threads of each worker; several workers share the cores unless the settings say."""
        if self._settings.torch_threads or self._worker_count == 1:
            return self._settings.torch_threads
        return max(1, (os.cpu_count() or 1) // self._worker_count)

    def _allowed_hosts(self) -> str:
        """On this machine alone no name from outside leads here, except to trick a browser."""
        if self._settings.allowed_hosts or self._host not in _LOOPBACK:
            return self._settings.allowed_hosts
        return "localhost,127.0.0.1,[::1]"

    def _api_command(self) -> Sequence[str]:
        options = {
            "--host": self._host,
            "--port": str(self._port),
        }
        flat = [part for option in options.items() for part in option]
        return [sys.executable, "-m", "api", *flat]

    def _await_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        with httpx2.Client(base_url=self.url, timeout=5, trust_env=False) as client:
            while reason := _not_ready(client):
                self._blame_the_dead()
                if time.monotonic() > deadline:
                    raise StartError(f"not ready after {_START_SECONDS:.0f} s: {reason}")
                time.sleep(_POLL_SECONDS)

    def _blame_the_dead(self) -> None:
        for child in (*self._api, *self._workers, *self._senders):
            code = child.exit_code()
            if code is not None:
                raise StartError(f"{child.name} ended with code {code}: {child.last_words()}")

    # -- watching and ending -----------------------------------------------------------------

    def _tell(self, what: str) -> None:
        show("up", what, as_json=self._settings.log_format == "json")

    def _revive_redis(self) -> None:
        """Redis comes back with all it had acknowledged; its clients reconnect by themselves."""
        if self._redis is None or (code := self._redis.process.poll()) is None:
            return
        self._tell(f"redis ended with code {code}; it starts again")
        url = self._redis.url
        self._redis = start_redis(self._settings.data_dir / "redis")
        if self._redis.url != url:
            raise StartError(f"redis came back at {self._redis.url}, not at {url}; start again")

    def _stop(self) -> None:
        """In the order in which nothing is lost; an interrupt in between ends all at once."""
        try:
            _end(self._api, _API_STOP_SECONDS)
            _end(self._workers, self._settings.drain_seconds + _SPARE_SECONDS)
            _end(self._senders, self._settings.webhook_timeout_seconds + _SPARE_SECONDS)
        finally:
            for child in (*self._api, *self._workers, *self._senders):
                child.kill()
            if self._redis is not None:
                self._redis.stop()
            if self._lock is not None:
                self._lock.close()


def _end(children: Sequence[ChildProcess], seconds: float) -> None:
    """Ask all, then wait for all, `seconds` at most."""
    deadline = time.monotonic() + seconds
    for child in children:
        child.terminate()
    for child in children:
        child.wait(deadline - time.monotonic())


def _not_ready(client: httpx2.Client) -> str | None:
    """Why the service cannot work yet; None if it can."""
    try:
        answer = client.get("/readyz")
    except httpx2.TransportError as exc:
        return f"the API does not answer ({exc})"
    if answer.status_code == httpx2.codes.OK:
        return None
    try:
        return str(answer.json()["detail"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return f"something else answers at {client.base_url}"
