"""The shop of these tests as a server, and a server that misbehaves as told."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from tests.harness.dev import Dev

APP: Final = Path(__file__).parent / "app"


def till_dev(data: Path, hosts: int | None = None) -> Dev:
    return Dev(data, actors=("till:Till",), front_door=None, folder=APP, hosts=hosts)


def response(status: int, body: bytes, content_type: str = "application/json", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} It", f"content-type: {content_type}", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Faulty:
    """Answers the n-th request with the n-th reply, and the last one from then on; None breaks the connection."""

    def __init__(self, replies: Sequence[bytes | None]) -> None:
        self.replies = replies
        self.heads: list[dict[str, str]] = []
        self.targets: list[str] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._answer(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
        head = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        await reader.readexactly(int(head["content-length"]))
        self.heads.append(head)
        self.targets.append(first.split(" ")[1])
        reply = self.replies[min(len(self.heads), len(self.replies)) - 1]
        if reply is None:
            return False
        writer.write(reply)
        await writer.drain()
        return True


@asynccontextmanager
async def faulty(*replies: bytes | None, tls: ssl.SSLContext | None = None) -> AsyncIterator[Faulty]:
    server = Faulty(replies)
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls) as listening:
        server.url = f"{'https' if tls else 'http'}://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        yield server
