"""Which addresses other machines can reach, and what follows from it."""

import ipaddress

from jobs.settings import Settings


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address. A name counts only if it is `localhost`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listening_on(host: str, settings: Settings, *, insecure: bool) -> Settings:
    """The settings of a service that listens there: where others can reach it, it asks for keys, unless `insecure`."""
    if is_loopback(host) or insecure:
        return settings
    return settings.model_copy(update={"require_key": True})
