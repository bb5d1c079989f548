"""`python -m api`: the HTTP service as a process of its own."""

import argparse
import ipaddress

import uvicorn

from api.app import create_app
from jobs.database import migrate
from jobs.logs import configure_logging
from jobs.settings import get_settings


def main(arguments: list[str] | None = None) -> None:
    """Bring the database up to date and serve until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m api", description="Serve the HTTP API.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (default %(default)s)")
    parser.add_argument(
        "--insecure-no-auth", action="store_true", help="listen on an address that other machines can reach"
    )
    options = parser.parse_args(arguments)
    if not is_loopback(options.host) and not options.insecure_no_auth:
        parser.error(
            f"{options.host} can be reached from other machines, and this service lets everyone in who can reach it; "
            "listen on 127.0.0.1, or say --insecure-no-auth if the network is trusted"
        )
    configure_logging()
    settings = get_settings()
    if not is_loopback(options.host):
        settings = settings.model_copy(update={"allowed_hosts": (*settings.allowed_hosts, url_host(options.host))})
    migrate(settings.database_url)
    uvicorn.run(
        create_app(settings),
        host=options.host,
        port=options.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=10,
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address. A name counts only if it is `localhost`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def url_host(host: str) -> str:
    """The address as it stands in a URL and in the Host header."""
    return f"[{host}]" if ":" in host else host


if __name__ == "__main__":
    main()
