"""`python -m api`: the HTTP service as a process of its own."""

import argparse

from pydantic import ValidationError

from api import server
from api.app import create_app
from jobs.advice import Advised
from jobs.database import migrate
from jobs.keys import check_administrator
from jobs.logs import configure_logging
from jobs.metrics import serve_metrics
from jobs.network import is_loopback, listening_on
from jobs.settings import complaint, get_settings


def main(arguments: list[str] | None = None) -> None:
    """Bring the database up to date and serve until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m api", description="Serve the HTTP API.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (default %(default)s)")
    parser.add_argument(
        "--insecure-no-auth", action="store_true", help="ask nobody for a key, though other machines can reach us"
    )
    options = parser.parse_args(arguments)
    configure_logging()
    try:
        settings = listening_on(options.host, get_settings(), insecure=options.insecure_no_auth)
    except ValidationError as error:
        parser.error(complaint(error))
    if not is_loopback(options.host):
        settings = settings.model_copy(update={"allowed_hosts": (*settings.allowed_hosts, url_host(options.host))})
    migrate(settings.database_url)
    try:
        check_administrator(settings, options.host)
        app = create_app(settings)
        app.state.store.check()
    except Advised as error:
        parser.error(f"{error}: {error.advice}")
    serve_metrics(settings, app.state.figures)
    server.run(
        app,
        host=options.host,
        port=options.port,
        server_header=False,
        timeout_graceful_shutdown=10,
    )


def url_host(host: str) -> str:
    """The address as it stands in a URL and in the Host header."""
    return f"[{host}]" if ":" in host else host


if __name__ == "__main__":
    main()
