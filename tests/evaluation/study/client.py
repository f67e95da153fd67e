"""A plain HTTP client for a running study."""

from __future__ import annotations

import http.client
import json
import socket
from dataclasses import dataclass
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One connection that stays open as long as the server lets it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Reply:
        self._connection.request(method, path, body=body, headers=headers or {})
        reply = self._connection.getresponse()
        return Reply(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())

    def get(self, path: str, **headers: str) -> Reply:
        return self.request("GET", path, headers=headers)

    def session(self, code: str) -> Any:
        reply = self.get(f"/api/session?participant={code}")
        assert reply.status == 200
        return reply.json

    def post(self, answer: Any, **headers: str) -> Reply:
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        return self.request("POST", "/api/answers", body, {"Content-Type": "application/json", **headers})

    def raw(self, data: bytes) -> bytes:
        """Send bytes on a connection of their own and return all that comes back."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            received = b""
            while part := connection.recv(1 << 16):
                received += part
        return received

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()


def an_answer(session: Any, *, case: int = 0, video: int = 0, question: str = "FG", rating: Any = 3) -> dict:
    """An answer to what a session shows at these places."""
    shown = session["cases"][case]
    return {
        "participant": session["participant"],
        "case": shown["id"],
        "video": shown["videos"][video]["id"],
        "question": question,
        "rating": rating,
    }
