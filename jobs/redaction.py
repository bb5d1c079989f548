"""What leaves the service says nothing of the server: no path of its disk, no key, no password."""

import re
import sys
import sysconfig
import tempfile
from collections.abc import Callable, MutableMapping
from functools import cache
from pathlib import Path
from typing import Any

from jobs.settings import Settings, get_settings

_SECRETS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\b(drk|whsec)_[\w+/=-]+"), r"\1_…"),
    (re.compile(r"(://[^\s:/@\"']*:)[^\s\"'<>]+(?=@)"), r"\1…"),  # the password in an address
    (re.compile(r"(?i)\b(authorization[\"']?\s*[:=]\s*[\"']?(?:\w+\s+)?)[^\s\"',;]+"), r"\1…"),
    (re.compile(r"(?i)\b(bearer\s+)[\w.~+/=-]{8,}"), r"\1…"),
    (re.compile(r"(?i)\b(\w*(?:password|secret|token|secret_access_key|signature|credential)=)[^\s&\"',;]+"), r"\1…"),
)


def scrub(text: str, settings: Settings | None = None) -> str:
    """The text without secrets, and with the server's directories by name: `<home>/scratch` for `/srv/dream/scratch`.

    `settings` say where `<home>` and `<data>` are; the process's own unless they are given.
    """
    settings = settings or get_settings()
    for pattern, name in _places(settings.home, settings.data_dir):
        text = pattern.sub(name, text)
    return without_secrets(text)


def scrub_all(value: Any, settings: Settings | None = None) -> Any:
    """The same for every text in a JSON value."""
    return _within(value, lambda text: scrub(text, settings))


def without_secrets(text: str) -> str:
    """The text with `…` for keys, signing secrets, passwords in addresses and what authorises a request."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def redact_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor for structlog. Paths stay: the log is the operator's own."""
    for name, value in event.items():
        event[name] = _within(value, without_secrets)
    return event


def _within(value: Any, change: Callable[[str], str]) -> Any:
    match value:
        case str():
            return change(value)
        case dict():
            return {name: _within(part, change) for name, part in value.items()}
        case list() | tuple():
            return [_within(part, change) for part in value]
    return value


@cache
def _places(home: Path, data_dir: Path) -> list[tuple[re.Pattern[str], str]]:
    """The server's directories as they may stand in a text, those inside others first."""
    named = {
        "<tmp>": [tempfile.gettempdir()],
        "<user>": [Path.home()],
        "<python>": [sys.prefix, sysconfig.get_path("stdlib")],
        "<dream>": [Path(__file__).parents[1]],
        "<home>": [home],
        "<data>": [data_dir],
    }
    places = {
        str(path): name for name, paths in named.items() for given in paths for path in (Path(given), _real(given))
    }
    return [
        (_standing(path), name)
        for path, name in sorted(places.items(), key=lambda place: -len(place[0]))
        if path.strip("/.")
    ]


def _real(path: str | Path) -> Path:
    """The path without symbolic links."""
    return Path(path).resolve()


def _standing(path: str) -> re.Pattern[str]:
    """The path where it stands for itself, not as the end of another one, nor as the beginning of a longer name."""
    return re.compile(rf"(?:(?<![\w.-])|(?<=\\[nrt])){re.escape(path)}(?![\w-])")
