"""Loaded by schemathesis: gives most requests ids of things that are there, so that they get beyond a 404."""

import json
import os
import random
from typing import Any

import schemathesis

KNOWN: dict[str, list[str]] = json.loads(os.environ.get("DREAM_FUZZ_KNOWN", "{}"))


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Put a known id in the place of most made-up ones."""
    for name in path_parameters or {}:
        if KNOWN.get(name) and random.random() < 0.8:
            path_parameters[name] = random.choice(KNOWN[name])
    return path_parameters
