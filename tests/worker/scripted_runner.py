"""Plays one part of a runner: `scripted_runner.py PART WORKDIR`."""

import faulthandler
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

part, workdir = sys.argv[1], Path(sys.argv[2])
order = json.loads((workdir / "job.json").read_text())
output, checkpoints = Path(order["output"]), Path(order["checkpoints"])
faulthandler.register(signal.SIGUSR1)
SUMMARY = {"accuracy": {"mean": 80.0, "std": 1.0, "n": 3}}


def emit(kind, **data):
    event = {"type": kind, "created_at": datetime.now(UTC).isoformat(), "data": data}
    with (workdir / "events.jsonl").open("a") as file:
        file.write(json.dumps(event) + "\n")


def save(*_):
    (checkpoints / "state").write_text("saved")
    why = (workdir / "stop").read_text()
    emit("log", message=f"asked to stop: {why}")
    if part.startswith("keep") and why in ("cancel", "timeout"):
        finish("0" * 64 if part == "keep_damaged" else None, {"partial": True, "step": 3, "steps": 10})
    if part == "keep_half":
        (output / "manifest.json").unlink(missing_ok=True)
    emit("checkpoint", step=7, bytes=5, seconds=0.0)
    sys.exit(75)


def fail(code, cause, name, message):
    (workdir / "error.json").write_text(json.dumps({"class": cause, "code": name, "message": message}))
    sys.exit(code)


def finish(checksum=None, summary=SUMMARY):
    pixels = b"pixels"
    (output / "synthetic.safetensors").write_bytes(pixels)
    digest = checksum or hashlib.sha256(pixels).hexdigest()
    file = {"path": "synthetic.safetensors", "bytes": 6, "sha256": digest, "media_type": "application/octet-stream"}
    (workdir / "result.json").write_text(json.dumps(summary))
    (output / "manifest.json").write_text(json.dumps({"schema_version": 1, "files": [file]}))


signal.signal(signal.SIGTERM, save)
emit("phase", phase="distilling")
emit("metric", step=3, total=10, loss=0.5, step_seconds=0.1, eta_s=0.7)
(workdir / "events.jsonl").open("a").write("this is no event\n")

match part:
    case "succeed":
        finish()
    case "damage":
        finish(checksum="0" * 64)
    case "nothing":
        pass
    case "wait" | "keep" | "keep_damaged" | "keep_half":
        time.sleep(60)
    case "wait_then_finish":
        signal.signal(signal.SIGTERM, lambda *_: (finish(), sys.exit(0)))
        time.sleep(60)
    case "keep_slowly":

        def ask(*_):
            (checkpoints / "asked").touch()
            asked.append(1)

        asked = []
        signal.signal(signal.SIGTERM, ask)
        while len(asked) < 2:
            time.sleep(0.02)
        save()
    case "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        (checkpoints / "helper").write_text(str(helper.pid))
        time.sleep(60)
    case "die":
        os.kill(os.getpid(), signal.SIGKILL)
    case "progress_and_die":
        emit("checkpoint", step=order["attempt"], bytes=5, seconds=0.0)
        os.kill(os.getpid(), signal.SIGKILL)
    case "user_error":
        fail(64, "user_error", "DATASET_MISSING", "there is no such folder")
    case "out_of_memory":
        fail(70, "out_of_memory", "CUDA_OUT_OF_MEMORY", "needs 3 GiB more; lower batch_syn_max")
    case "disk_full":
        fail(74, "internal", "DISK_FULL", "no space left")
    case "crash":
        raise RuntimeError("a mistake")
    case "tell_all":
        secrets = f"at {order['checkpoints']} with drk_abcdefghijk and redis://:hunter2@broker:6379/0"
        emit("warning", code="TOLD", message=secrets, nested=[{"path": str(workdir)}])
        sys.stdout.write(f"printed {secrets}\nwithout an end")
        sys.stdout.flush()
        fail(64, "user_error", "TOLD", secrets)
    case "flood":
        for step in range(5000):
            emit("metric", step=step, total=5000, loss=float("nan"), eta_s=None)
        finish()
