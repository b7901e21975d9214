"""A rate limiter: every client has a bucket of tokens that fills as time passes.

kubeactor dev
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from kubeactor import Actor, Binding, Env, Key, Problem


@dataclass
class Bucket:
    """So many tokens were in it at that time."""

    tokens: float
    at: datetime


BUCKET = Key("bucket", Bucket)


class TooManyRequests(Problem):
    """The bucket is empty."""

    status = 429
    wait_s: int


class Limiter(Actor):
    """The bucket of one client. Calls of a client come one after another, so two never take the same token."""

    env: Limits

    async def take(self) -> int:
        """Take a token; how many are left. Raises TooManyRequests when there is none."""
        limit, now = self.env.LIMIT, self.ctx.now()
        per_second = limit / self.env.WINDOW_S
        bucket = await self.ctx.storage.get(BUCKET) or Bucket(limit, now)
        tokens = min(limit, bucket.tokens + (now - bucket.at).total_seconds() * per_second)
        if tokens < 1:
            wait_s = math.ceil((1 - tokens) / per_second)
            raise TooManyRequests(f"{limit} requests in {self.env.WINDOW_S:g} s are allowed", wait_s=wait_s)
        await self.ctx.storage.put(BUCKET, Bucket(tokens - 1, now))
        return math.floor(tokens - 1)


class Limits(Env):
    """`LIMIT=100 WINDOW_S=60 kubeactor dev` sets others."""

    LIMITER: Binding[Limiter]
    LIMIT: int = 3
    WINDOW_S: float = 3600.0


async def fetch(request: Request, env: Limits) -> Response:
    """GET /{client}: for a proxy that asks before it forwards a request."""
    try:
        left = await env.LIMITER.id_from_name(request.url.path[1:] or "anonymous").take()
    except TooManyRequests as error:
        return JSONResponse({"left": 0}, 429, {"retry-after": str(error.wait_s)})
    return JSONResponse({"left": left})
