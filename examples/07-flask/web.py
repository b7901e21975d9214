"""A Flask service, with as many threads and processes as it likes, that calls the actors of visits.py.

KUBEACTOR_URL=http://127.0.0.1:8080 flask --app web run
"""

from __future__ import annotations

import os

from flask import Flask
from visits import Site

from kubeactor.client import connect_sync

app = Flask(__name__)
site = connect_sync(Site, os.environ.get("KUBEACTOR_URL", "http://127.0.0.1:8080"))


@app.get("/pages/<name>")
def show(name: str) -> dict[str, str | int]:
    """Count a visit, once, though the actors' host may crash meanwhile."""
    return {"page": name, "visits": site.call(site.env.PAGE.id_from_name(name).visit)}


@app.get("/pages/<name>/visits")
def visits(name: str) -> dict[str, int]:
    return {"visits": site.call(site.env.PAGE.id_from_name(name).count)}
