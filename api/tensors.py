"""Safetensors read some rows at a time, from a disk or from another server: the library's own reader wants a disk."""

import json
from typing import BinaryIO

import numpy as np

_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "<u1", "BOOL": "?",
}  # fmt: skip
_MAX_HEADER = 100_000_000  # the format's own limit


class Tensors:
    """The arrays of an open file. Raises ValueError where it is no safetensors file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        length = int.from_bytes(file.read(8), "little")
        if length > _MAX_HEADER:
            raise ValueError("not a safetensors file")
        self._header = json.loads(file.read(length))
        self._start = 8 + length

    def shape(self, name: str) -> tuple[int, ...]:
        """Raises KeyError for a name that is not there."""
        return tuple(self._header[name]["shape"])

    def dtype(self, name: str) -> np.dtype:
        """Of the array in numpy; there is no bfloat16."""
        return np.dtype(_TYPES[self._header[name]["dtype"]])

    def rows(self, name: str, first: int = 0, last: int | None = None) -> np.ndarray:
        """From the first to before the last; all that there are without it."""
        count, *row = self.shape(name)
        last = count if last is None else min(last, count)
        size = self.dtype(name).itemsize * int(np.prod(row, dtype=np.int64))
        self._file.seek(self._start + self._header[name]["data_offsets"][0] + first * size)
        content = self._file.read((last - first) * size)
        return np.frombuffer(content, self.dtype(name)).reshape(last - first, *row)
