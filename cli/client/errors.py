"""The errors of the client, and how a command ends with them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from cli.output import AWAY, FAILED, INTERRUPTED, NOT_FOUND, REFUSED, USAGE_ERROR, fail


class ClientError(Exception):
    """The command cannot continue; the message says why, with one line for each wrong field."""

    exit_code = FAILED


class WrongUsage(ClientError):
    """Options or arguments are wrong; nothing was sent."""

    exit_code = USAGE_ERROR


class Refused(ClientError):
    """The service refused the request; repeating it changes nothing."""

    exit_code = REFUSED


class NotFound(ClientError):
    """The service has no such job or image, or no longer."""

    exit_code = NOT_FOUND


class ServiceAway(ClientError):
    """The service does not answer or has no room.

    `problem` is what it answered, None if it did not answer; `retry_after` is in seconds.
    """

    exit_code = AWAY

    def __init__(
        self,
        message: str,
        problem: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.problem = problem
        self.retry_after = retry_after


@contextmanager
def exit_on_error(interrupted: str = "interrupted") -> Iterator[None]:
    """End the command with a message on a `ClientError`, and with `interrupted` on Ctrl-C."""
    try:
        yield
    except ClientError as exc:
        fail(str(exc), exc.exit_code)
    except KeyboardInterrupt:
        fail(interrupted, INTERRUPTED)
