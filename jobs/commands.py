"""Commands that this package gives to `dream`. Imports nothing heavy until one is called."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.advice import Advised

if TYPE_CHECKING:
    from jobs.backup import Backup
    from jobs.settings import Settings

Home = Annotated[
    Path | None,
    typer.Option("--home", help="Where the service keeps all it writes.", show_default="DREAM_HOME or ~/.dream"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.", show_default=False)]


def serve(
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes any free one.")
    ] = 8000,
    home: Home = None,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", help="Where the real images are.", show_default="DREAM_DATA_DIR or HOME/data"),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, help="Jobs that run at the same time.")] = 1,
    insecure_no_auth: Annotated[
        bool, typer.Option("--insecure-no-auth", help="Let other machines in, though nobody is asked for a key.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run the whole service here: API, worker and broker."""
    from jobs.serve import Options
    from jobs.serve import serve as run

    def announce(facts: dict[str, str]) -> None:
        words = f"dream is ready at {facts['url']} (a page, too), with its files in {facts['home']} (Ctrl-C stops it)"
        sys.stdout.write((json.dumps(facts) if as_json else words) + "\n")
        sys.stdout.flush()

    try:
        run(Options(host, port, home, data_dir, workers, insecure_no_auth), announce)
    except Advised as error:
        raise _failure(error, as_json) from None


def admin_key(
    home: Home = None,
    name: Annotated[str | None, typer.Option("--name", help="For people, to know it by.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make an administrator's key, shown this once, in the service's database. The service need not run."""

    try:
        facts = _stored_key(home, name)
    except Advised as error:
        raise _failure(error, as_json) from None
    sys.stdout.write((json.dumps(facts) if as_json else facts["token"]) + "\n")
    if not as_json:
        use = f"it is an administrator's, and works at once ({facts['id']})"
        sys.stderr.write(f"keep this key, it is not shown again: {use}\n")


def migrate(
    revision: Annotated[str, typer.Argument(help="Another schema than this version's own, to go back to.")] = "head",
    home: Home = None,
) -> None:
    """Bring the service's database up to date, as every part of it does when it starts."""
    from jobs.serve import Options, prepare_database, read_settings

    try:
        prepare_database(read_settings(Options(home=home)), revision)
    except Advised as error:
        raise _failure(error, as_json=False) from None
    sys.stdout.write(f"the database is at {revision}\n")


def backup(
    directory: Annotated[Path, typer.Argument(help="A new directory, for the database and the files.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Copy all that a service must not lose, while it runs."""
    from jobs import backup

    _copied(lambda settings: backup.back_up(settings, directory), f"is in {directory}: keep it secret", home, as_json)


def restore(
    directory: Annotated[Path, typer.Argument(help="What `dream backup` made.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Put a backup into an empty home and an empty database, where no service runs."""
    from jobs import backup

    _copied(lambda settings: backup.restore(settings, directory), "is put back", home, as_json)


def _copied(copy: Callable[["Settings"], "Backup"], outcome: str, home: Path | None, as_json: bool) -> None:
    from jobs.serve import Options, read_settings

    try:
        facts = copy(read_settings(Options(home=home)))
    except Advised as error:
        raise _failure(error, as_json) from None
    words = f"the backup of {facts.created_at} {outcome} ({facts.files} files, {facts.bytes / 1e6:.1f} MB)"
    if facts.artifacts_url:
        words += f"\nresults lie in {facts.artifacts_url} and are not in it: back that up, too, after this"
    sys.stdout.write((json.dumps(asdict(facts)) if as_json else words) + "\n")


def _stored_key(home: Path | None, name: str | None) -> dict[str, str]:
    from jobs import audit, keys
    from jobs.database import make_engine, make_sessions
    from jobs.serve import Options, prepare_database, read_settings

    settings = read_settings(Options(home=home))
    prepare_database(settings)
    engine = make_engine(settings.database_url)
    with make_sessions(engine).begin() as session:
        key, token = keys.create_key(session, keys.hashing_key(settings), keys.ADMIN, [keys.ADMIN], name)
        audit.record(session, keys.ADMIN, None, "key.created", key.id, None)
    engine.dispose()
    return {"id": key.id, "owner": key.owner, "token": token}


def _failure(error: Advised, as_json: bool) -> typer.Exit:
    """Say what is wrong, and what to do."""
    failure = {"error": {"code": "SERVE", "message": str(error), "advice": error.advice}}
    sys.stderr.write((json.dumps(failure) if as_json else f"error: {error}\n  → {error.advice}") + "\n")
    return typer.Exit(1)
