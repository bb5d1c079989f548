"""Commands that this package gives to `dream`. Imports nothing heavy until one is called."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def serve(
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes any free one.")
    ] = 8000,
    home: Annotated[
        Path | None,
        typer.Option("--home", help="Where the service keeps all it writes.", show_default="DREAM_HOME or ~/.dream"),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", help="Where the real images are.", show_default="DREAM_DATA_DIR or HOME/data"),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, help="Jobs that run at the same time.")] = 1,
    insecure_no_auth: Annotated[
        bool, typer.Option("--insecure-no-auth", help="Let other machines in, though nobody is asked for a password.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Machine-readable output on stdout.", show_default=False)
    ] = False,
) -> None:
    """Run the whole service here: API, worker and broker."""
    from jobs.embedded import ServeError
    from jobs.serve import Options
    from jobs.serve import serve as run

    def announce(facts: dict[str, str]) -> None:
        words = f"dream is ready at {facts['url']}, with its files in {facts['home']} (Ctrl-C stops it)"
        sys.stdout.write((json.dumps(facts) if as_json else words) + "\n")
        sys.stdout.flush()

    try:
        run(Options(host, port, home, data_dir, workers, insecure_no_auth), announce)
    except ServeError as error:
        failure = {"error": {"code": "SERVE", "message": str(error), "advice": error.advice}}
        sys.stderr.write((json.dumps(failure) if as_json else f"error: {error}\n  → {error.advice}") + "\n")
        raise typer.Exit(1) from None
