"""Reads what a server answers on a socket."""

import json
import socket


def read_all(connection: socket.socket) -> bytes:
    """All bytes until the server closes or resets the connection."""
    received = b""
    try:
        while part := connection.recv(65_536):
            received += part
    except ConnectionResetError:
        pass
    return received


def read_raw_problem(answer: bytes) -> tuple[int, str]:
    """Status and code of a raw response, which must be a problem that closes the connection."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert b"content-type: application/problem+json" in lines, answer
    assert b"connection: close" in lines, answer
    return int(lines[0].split()[1]), json.loads(body)["code"]
