"""What the HTTP ports of a process are for."""

from __future__ import annotations

from typing import Final

__all__ = ["API", "DRAIN_S", "FRONT", "INTERNAL", "PUBLIC"]

PUBLIC: Final = "public"  # the API, and the front door if there is one
FRONT: Final = "front"  # the front door only
API: Final = "api"
INTERNAL: Final = "internal"  # health, metrics and the operator's questions

# Connections that are kept alive leave with the answer to their next request, so that none meets a closed one.
DRAIN_S: Final = 2.0
