"""Events in sentences, for the log that a person reads."""

from typing import Any


def sentence(kind: str, data: dict[str, Any]) -> str | None:
    """What happened, on one line; None for what is only to be looked at."""
    told = None
    match kind, data:
        case "phase", {"phase": phase}:
            told = phase
        case "metric", {"subject": subject, "run": run, "epoch": epoch}:
            told = f"{subject}, network {run}: epoch {epoch}{_to_go(data)}"
        case "metric", {"step": step, "total": total, "loss": loss}:
            told = f"step {step} of {total}: loss {loss:.4g}{_to_go(data)}"
        case "checkpoint", {"step": step, "total": total, "bytes": size, "seconds": seconds}:
            told = f"checkpoint at step {step} of {total}: {_size(size)} in {seconds:.2f} s"
        case "evaluation", {"subject": subject, "run": run, "runs": runs, "last": last}:
            told = f"{subject}, network {run} of {runs}: {last:.2f} %"
        case "warning", {"message": message}:
            told = f"warning: {message}"
        case "log", {"message": message}:
            told = message
    return told


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def _to_go(data: dict[str, Any]) -> str:
    seconds = data.get("eta_s")
    if not seconds:
        return ""
    minutes, hours = seconds / 60, seconds / 3600
    left = f"{hours:.1f} h" if hours >= 1 else f"{minutes:.0f} min" if minutes >= 1 else f"{seconds:.0f} s"
    return f", about {left} to go"
