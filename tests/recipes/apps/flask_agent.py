"""An agent as a Flask application that calls its API with requests."""

import os

import requests
from flask import Flask

API_URL = os.environ["API_URL"]
app = Flask(__name__)


@app.get("/healthz")
def healthz() -> str:
    """Tell that the application runs."""
    return "ok"


@app.get("/call/<item>")
def call(item: str) -> list[int]:
    """Call the API."""
    return [requests.get(f"{API_URL}/items/{item}", timeout=30).status_code]
