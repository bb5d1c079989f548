"""Loaded by schemathesis: gives most requests ids of things that are there, so that they get beyond a 404."""

import json
import os
import zlib
from typing import Any

import schemathesis

KNOWN: dict[str, list[str]] = json.loads(os.environ.get("DREAM_FUZZ_KNOWN", "{}"))


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Put a known id in the place of most made-up ones, always the same for the same one."""
    for name, made_up in (path_parameters or {}).items():
        number = zlib.crc32(str(made_up).encode(errors="replace"))
        if KNOWN.get(name) and number % 5:
            path_parameters[name] = KNOWN[name][number // 5 % len(KNOWN[name])]
    return path_parameters
