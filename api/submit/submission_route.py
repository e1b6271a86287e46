"""The route class of everything that makes the service work for a key: its limits come first."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from api.auth.key_limits import KeyLimitCheck


class SubmissionRoute(APIRoute):
    """Checks whether the key may call, and counts the call, before the body is read.

    So a key without a right, or beyond its rate, causes no work. Also calls that turn out to be
    invalid are counted.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of FastAPI, after the check."""
        handle = super().get_route_handler()

        async def check_and_handle(request: Request) -> Response:
            await key_limits_of(request).count_ahead()
            return await handle(request)

        return check_and_handle


def key_limits_of(request: Request) -> KeyLimitCheck:
    """The check of the limits of the caller's key."""
    state = request.state
    return KeyLimitCheck(state.caller, state.rates, state.card, request)
