"""The error of the client, and how a command ends with it."""

from collections.abc import Iterator
from contextlib import contextmanager

from cli.output import INTERRUPTED, fail


class ClientError(Exception):
    """The command cannot continue; the message says why, with one line for each wrong field."""


@contextmanager
def exit_on_error(interrupted: str = "interrupted; the job is cancelled") -> Iterator[None]:
    """End the command with a message on a `ClientError`, and with `interrupted` on Ctrl-C."""
    try:
        yield
    except ClientError as exc:
        fail(str(exc))
    except KeyboardInterrupt:
        fail(interrupted, INTERRUPTED)
