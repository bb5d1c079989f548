"""Networks that are trained once and used by many runs: a safetensors file each, in a folder named by what decides
them."""

import hashlib
import json
import os
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor


class NetworkCache:
    """Files of tensors by name, under a key of all that decides them.

    Files are written whole or not at all. Runs that write the same file at the same time write the same bytes.

    Args:
        directory: where caches lie; None means a temporary one, gone with this object.
        about: what the tensors hang on, as JSON: settings, and the dataset's fingerprint.
    """

    def __init__(self, directory: Path | None, about: dict[str, Any]):
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:24]
        if directory is None:
            directory = Path(tempfile.mkdtemp(prefix="dream-cache-"))
            weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)
        self.directory = directory / key
        self._about = about

    def load(self, name: str, only: Sequence[str] | None = None) -> dict[str, Tensor] | None:
        """The tensors of a file, all or `only` some; None where there is none, or where it cannot be read."""
        try:
            with safe_open(self.directory / f"{name}.safetensors", "pt") as file:
                return {key: file.get_tensor(key) for key in only or file.keys()}
        except (OSError, SafetensorError):
            return None

    def __contains__(self, name: str) -> bool:
        return (self.directory / f"{name}.safetensors").is_file()

    def save(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Keep tensors under a name. Raises OSError where the disk does not let it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._write("about.json", json.dumps(self._about, indent=2, sort_keys=True).encode())
        self._write(f"{name}.safetensors", save({key: tensor.contiguous() for key, tensor in tensors.items()}))

    def _write(self, name: str, content: bytes) -> None:
        partial = self.directory / f".{uuid.uuid4().hex}.tmp"
        try:
            partial.write_bytes(content)
            os.replace(partial, self.directory / name)
        finally:
            partial.unlink(missing_ok=True)
