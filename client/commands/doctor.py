"""`dream doctor`: what is installed here, what answers there, and what to do about the rest."""

import importlib.metadata
import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import typer
from rich.table import Table
from rich.text import Text

from client import plugins
from client.commands.options import FACTS, JsonOption, UrlOption
from client.console import out, print_json
from client.errors import ApiError, ServiceUnreachable
from client.sdk import Client

app = typer.Typer()

DISTRIBUTION = "dream-distillation"
SHOWN = ("jobs", "api", "worker", "serve", "gpu", "postgres")
"""The extras that a user of the command chooses among."""
MARKS = {"ok": ("✓", "green"), "absent": ("–", "yellow"), "broken": ("✗", "bold red")}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `absent` is a matter of choice, `broken` has to be mended."""

    what: str
    state: Literal["ok", "absent", "broken"]
    detail: str
    advice: str = ""


@app.command(rich_help_panel=FACTS)
def doctor(url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Check this installation and the service; say what to do."""
    findings = [*installation(), *machine(), *service(url), *data()]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        out.print(page(findings))
    raise typer.Exit(1 if any(finding.state == "broken" for finding in findings) else 0)


def page(findings: list[Finding]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column()
    for finding in findings:
        mark, style = MARKS[finding.state]
        detail = Text(finding.detail)
        if finding.advice:
            detail.append(f"\n→ {finding.advice}", style="dim")
        table.add_row(Text(mark, style=style), Text(finding.what), detail)
    return table


def installation() -> Iterator[Finding]:
    yield Finding("python", "ok", f"{platform.python_version()} at {sys.executable}")
    yield Finding("dream", "ok", importlib.metadata.version(DISTRIBUTION))
    seen: set[str] = set()
    for extra in SHOWN:
        required = requirements(extra)
        versions = {name: installed(name) for name in required}
        absent = [name for name, version in versions.items() if version is None]
        if absent:
            advice = f"if wanted: pip install '{DISTRIBUTION}[{extra}]'"
            yield Finding(f"extra {extra}", "absent", f"not installed: {', '.join(absent)}", advice)
        else:
            own = [f"{name} {version}" for name, version in versions.items() if name not in seen]
            yield Finding(f"extra {extra}", "ok", ", ".join(own))
        seen.update(required)


def requirements(extra: str) -> list[str]:
    """Names of all that an extra brings."""
    pattern = re.compile(rf"""^([\w.-]+).*;.*extra == ['"]{extra}['"]""")
    matches = (pattern.match(line) for line in importlib.metadata.requires(DISTRIBUTION) or ())
    return [match[1] for match in matches if match and match[1] != DISTRIBUTION]


def installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def machine() -> Iterator[Finding]:
    """The device that would compute here. Asked of the worker's package: only that one may load torch."""
    facts: dict[str, Any] | None = plugins.local("device")
    if facts is None:
        yield Finding("device", "absent", "nothing can be distilled here without the worker extra")
        return
    yield Finding("device", "ok", f"{facts['device']} ({facts['name']}), torch {facts['torch']}")
    if facts["device"] != "cpu":
        advice = "" if facts["cuml"] else f"faster clustering: pip install '{DISTRIBUTION}[gpu]'"
        yield Finding("cuml", "ok" if facts["cuml"] else "absent", facts["cuml"] or "torch clusters instead", advice)


def service(url: str | None) -> Iterator[Finding]:
    with Client(url, timeout=5, patience=0) as client:
        try:
            client.health()
        except ServiceUnreachable as error:
            state = "broken" if url else "absent"
            yield Finding("service", state, f"no answer at {client.base_url}", error.advice)
        except ApiError as error:
            yield Finding("service", "broken", f"{client.base_url} is not ready: {error}", "see the log of the service")
        else:
            yield Finding("service", "ok", f"ready at {client.base_url}")
            yield owner(client)


def owner(client: Client) -> Finding:
    """Whom the service takes one for."""
    try:
        return Finding("owner", "ok", f"jobs made there belong to {client.limits()['owner']}")
    except ApiError as error:
        return Finding("owner", "broken", str(error), error.advice)


def data() -> Iterator[Finding]:
    datasets: list[dict[str, Any]] | None = plugins.local("datasets")
    if datasets is None:
        return
    here = [dataset["name"] for dataset in datasets if dataset["available"]]
    missing = [dataset["name"] for dataset in datasets if not dataset["available"]]
    yield Finding("data here", "ok", ", ".join(here))
    if missing:
        yield Finding("data missing", "absent", ", ".join(missing), "`dream datasets` says what to put where")
