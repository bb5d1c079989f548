"""Many clients who download the same large file."""

import hashlib
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil

from jobs.artifacts import write_manifest
from jobs.settings import Settings
from jobs.stores.local import LocalStore

FILE = "large.bin"
PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Downloads:
    """What they took, and what the service's memory was before and at its peak."""

    clients: int
    bytes: int
    seconds: float
    failures: int
    rss_before: int
    rss_peak: int


def publish_large(settings: Settings, job_id: str, size: int) -> str:
    """Give the job a result of one large file; its SHA-256."""
    store = LocalStore(settings.artifacts, settings.staging)
    staged = store.stage()
    piece = bytes(range(256)) * (PIECE // 256)
    with (staged / FILE).open("wb") as file:
        for _ in range(size // PIECE):
            file.write(piece)
    manifest = write_manifest(staged, {"schema_version": 1, "job_id": job_id})
    store.publish(staged, job_id)
    return manifest.files[0].sha256


def download(url: str, job_id: str, key: str, sha256: str, clients: int, api: psutil.Process) -> Downloads:
    """All at once. One of them compares what arrives with its checksum, the others count it."""
    request = urllib.request.Request(
        f"{url}/v1/jobs/{job_id}/artifacts/{FILE}", headers={"Authorization": f"Bearer {key}"}
    )

    def fetch(client: int) -> int | None:
        digest, received, buffer = hashlib.sha256(), 0, memoryview(bytearray(PIECE))
        with urllib.request.urlopen(request, timeout=120) as response:
            while count := response.readinto(buffer):
                received += count
                if client == 0:
                    digest.update(buffer[:count])
            expected = int(response.headers["Content-Length"])
        whole = received == expected and (client != 0 or digest.hexdigest() == sha256)
        return received if whole else None

    before, start = api.memory_info().rss, time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        received = list(pool.map(fetch, range(clients)))
    seconds = time.perf_counter() - start
    whole = [count for count in received if count is not None]
    return Downloads(clients, sum(whole), seconds, clients - len(whole), before, _peak(api))


def _peak(process: psutil.Process) -> int:
    """The most memory that the process has had, in bytes: the kernel's count, which misses no moment."""
    for line in Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return process.memory_info().rss
