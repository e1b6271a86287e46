"""The client of the sender: which address gets a message, TLS, redirects, bad receivers."""

import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler
from typing import Any

import httpx2
import pytest
import trustme

from tests.support.manual_worker import ManualWorker
from tests.support.ports import free_port
from tests.support.receiver import sending
from tests.support.webhooks import (
    MakeReceiver,
    delivery_log,
    fake_resolver,
    finish_job,
    wait_for_attempts,
    wait_until_outbox_is_empty,
)
from worker.settings import Settings


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def answer_with_ssh(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.9\r\n")


def redirect(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(307)
    handler.send_header("Location", handler.path + "/elsewhere")
    handler.end_headers()


def test_bad_receivers_are_retried(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: MakeReceiver
) -> None:
    cases: list[tuple[Any, tuple[int | None, str]]] = [
        (hang_up, (None, "connection_lost")),
        (answer_with_ssh, (None, "connection_lost")),
        (redirect, (307, "redirect")),
        (404, (404, "bad_status")),
    ]
    hooks = [receiver(answer, 204) for answer, _ in cases]
    jobs = [finish_job(client, worker, hook.url) for hook in hooks]
    with sending(settings):
        wait_until_outbox_is_empty(worker.redis)
    for (_, expected), hook, job_id in zip(cases, hooks, jobs, strict=True):
        first, second = delivery_log(client, job_id)
        assert (first["status"], first["error"]) == expected
        assert second["status"] == 204
        # A followed redirect would reach the same server under another path.
        assert [received.path for received in hook.received] == ["/hook", "/hook"]


def test_silent_receiver_times_out(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: MakeReceiver
) -> None:
    is_over = threading.Event()
    hook = receiver(lambda _: is_over.wait(60))
    job_id = finish_job(client, worker, hook.url)
    with sending(settings.model_copy(update={"webhook_timeout_seconds": 0.3})):
        first = wait_for_attempts(client, job_id, 1)[0]
    is_over.set()
    assert (first["status"], first["error"]) == (None, "timeout")


def test_unreachable_receiver(
    client: httpx2.Client, worker: ManualWorker, settings: Settings
) -> None:
    job_id = finish_job(client, worker, f"http://127.0.0.1:{free_port()}/")
    with sending(settings):
        log = wait_for_attempts(client, job_id, 3)
    assert {(entry["status"], entry["error"]) for entry in log} == {(None, "connection_failed")}


def test_response_body_is_not_read(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: MakeReceiver
) -> None:
    def answer_endlessly(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"x" * 65_536)
        except OSError:
            handler.close_connection = True

    hook = receiver(answer_endlessly)
    job_id = finish_job(client, worker, hook.url)
    with sending(settings):
        wait_until_outbox_is_empty(worker.redis)
    (entry,) = delivery_log(client, job_id)
    assert (entry["status"], entry["error"]) == (200, None)
    assert len(hook.received) == 1


def test_connects_to_the_checked_address(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: MakeReceiver
) -> None:
    """The name is resolved once: DNS rebinding after the check has no effect."""
    allowed = receiver()
    forbidden = receiver(host="127.0.0.2", port=allowed.port)
    job_id = finish_job(client, worker, f"http://rebinding.example:{allowed.port}/hook")
    queried, resolve = fake_resolver(["127.0.0.1"], ["127.0.0.2"])
    with sending(settings, resolve=resolve):
        wait_for_attempts(client, job_id, 1)
    assert queried == ["rebinding.example"]
    (received,) = allowed.received
    assert received.headers["host"] == f"rebinding.example:{allowed.port}"
    assert forbidden.received == []


def test_never_connects_to_a_forbidden_address(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: MakeReceiver
) -> None:
    forbidden = receiver(host="127.0.0.2")
    allowed = receiver(host="127.0.0.1", port=forbidden.port)
    job_id = finish_job(client, worker, f"http://rebinding.example:{forbidden.port}/hook")
    _, resolve = fake_resolver(["127.0.0.2"], ["127.0.0.1", "127.0.0.2"], ["127.0.0.1"])
    with sending(settings, resolve=resolve):
        log = wait_for_attempts(client, job_id, 3)
    assert [entry["error"] for entry in log] == ["blocked_address", "blocked_address", None]
    assert forbidden.received == []
    assert len(allowed.received) == 1


def test_redirect_to_a_forbidden_address_is_not_followed(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: MakeReceiver
) -> None:
    forbidden = receiver(host="127.0.0.2")

    def redirect_there(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", forbidden.url)
        handler.end_headers()

    hook = receiver(redirect_there)
    job_id = finish_job(client, worker, hook.url)
    with sending(settings):
        log = wait_for_attempts(client, job_id, 3)
    assert {entry["error"] for entry in log} == {"redirect"}
    assert forbidden.received == []


def test_stricter_policy_applies_to_waiting_messages(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: MakeReceiver
) -> None:
    hook = receiver()
    job_id = finish_job(client, worker, hook.url)
    with sending(settings.model_copy(update={"webhook_allow_http": False})):
        first = wait_for_attempts(client, job_id, 1)[0]
    assert first["error"] == "blocked_url"
    assert hook.received == []


def test_ignores_proxies_of_the_environment(
    client: httpx2.Client,
    worker: ManualWorker,
    settings: Settings,
    receiver: MakeReceiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hook, proxy = receiver(), receiver()
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    job_id = finish_job(client, worker, hook.url)
    with sending(settings):
        wait_for_attempts(client, job_id, 1)
    assert len(hook.received) == 1
    assert proxy.received == []


def test_tries_the_next_address_if_one_is_unreachable(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: MakeReceiver
) -> None:
    hook = receiver()
    job_id = finish_job(client, worker, f"http://both.example:{hook.port}/hook")
    both = settings.model_copy(update={"webhook_networks": "127.0.0.0/8"})
    _, resolve = fake_resolver(["127.0.0.3", "127.0.0.1"])  # nothing listens on the first
    with sending(both, resolve=resolve):
        (entry,) = wait_for_attempts(client, job_id, 1)
    assert entry["status"] == 204


@pytest.fixture(scope="module")
def tls_authority() -> trustme.CA:
    return trustme.CA()


def server_context(authority: trustme.CA, name: str, sni_names: list[str | None]) -> ssl.SSLContext:
    """TLS of a receiver with a certificate for `name`; SNI names are added to `sni_names`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    context.sni_callback = lambda _, server_name, __: sni_names.append(server_name)
    return context


def client_context(authority: trustme.CA) -> ssl.SSLContext:
    """TLS of a sender that trusts `authority`."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_tls_checks_the_name_not_the_address(
    client: httpx2.Client,
    worker: ManualWorker,
    settings: Settings,
    receiver: MakeReceiver,
    tls_authority: trustme.CA,
) -> None:
    sni_names: list[str | None] = []
    hook = receiver(tls=server_context(tls_authority, "hooks.example", sni_names))
    job_id = finish_job(client, worker, f"https://hooks.example:{hook.port}/hook")
    _, resolve = fake_resolver(["127.0.0.1"])
    with sending(settings, resolve=resolve, tls=client_context(tls_authority)):
        (entry,) = wait_for_attempts(client, job_id, 1)
    assert (entry["status"], sni_names) == (204, ["hooks.example"])
    assert hook.received[0].headers["host"] == f"hooks.example:{hook.port}"


def test_refuses_wrong_certificates(
    client: httpx2.Client,
    worker: ManualWorker,
    settings: Settings,
    receiver: MakeReceiver,
    tls_authority: trustme.CA,
) -> None:
    hook = receiver(tls=server_context(tls_authority, "127.0.0.1", []))
    other_name = f"https://hooks.example:{hook.port}/hook"
    unknown_authority = f"https://127.0.0.1:{hook.port}/hook"
    for url, tls in ((other_name, client_context(tls_authority)), (unknown_authority, None)):
        job_id = finish_job(client, worker, url)
        _, resolve = fake_resolver(["127.0.0.1"])
        with sending(settings, resolve=resolve, tls=tls):
            log = wait_for_attempts(client, job_id, 3)
        assert {entry["error"] for entry in log} == {"tls_failed"}, url
    assert hook.received == []
