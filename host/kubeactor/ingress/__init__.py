"""The ingress: HTTP in, calls out, by a fast path in the protocol class and a slow one through ASGI.

requests.py   what a request asks for: target, idempotency key, time limit
problem.py    an error as a response
state.py      what all connections share: dispatcher, request ids, counters, repeated calls
protocol.py   the connection: order, bounds, the fast path
app.py        the ASGI app: health, metrics, the slow path, the front door
front_door.py the user's own app in a request scope
server.py     uvicorn around both
"""
