"""Where the service may send what a user tells it to send: to the public internet, and nowhere else.

Whoever may name an address could otherwise have the service speak to what only the service can reach: its database,
its neighbours, the host's metadata. The address is looked at twice: when it is given, to say at once what is wrong with
it, and whenever something is sent (`worker.egress`), since a name can mean another machine by then.
"""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import httpx2

PORTS = (443, 8443)

_NAME = re.compile(
    r"(?:[a-z0-9_-]{1,63}\.)+[a-z][a-z0-9-]{0,62}"
)  # a last part of digits would be an old IPv4 spelling
_LOCAL = (".localhost", ".local", ".internal")
_ROUTED = ip_network("2000::/3")  # what is in use of IPv6
_NAT64 = ip_network("64:ff9b::/96")  # how a host without IPv4 reaches the rest
_NOT_PUBLIC = tuple(
    ip_network(network)
    for network in (
        "192.0.0.0/24",  # of protocols; some clouds have their metadata here
        "192.88.99.0/24",  # relays into 6to4
        "168.63.129.16/32",  # a cloud's own services, under a public address
        "2002::/16",  # 6to4: an IPv4 address of any kind inside
    )
)


class NotAllowed(ValueError):
    """An address that nothing is sent to. The message is for the user who gave it."""


def is_public(address: str) -> bool:
    """Whether an IP address is a machine of the public internet, whichever way the address is written."""
    return _is_public(ip_address(address))


def _is_public(ip: IPv4Address | IPv6Address) -> bool:
    if isinstance(ip, IPv6Address) and ip in _NAT64:
        return _is_public(IPv4Address(int(ip) & 0xFFFF_FFFF))
    if isinstance(ip, IPv6Address) and ip not in _ROUTED:
        return False  # among them ::ffff:0:0/96, IPv4 in disguise
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _NOT_PUBLIC)


def check_url(text: str, *, allow_private: bool = False) -> httpx2.URL:
    """The URL, if it may be sent to as far as its text tells; its name is not looked up. Raises NotAllowed.

    `allow_private` is for a developer's own machine: http, any port and any host are fine then.
    """
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL:
        raise NotAllowed("is not a URL") from None
    if url.scheme not in (("https", "http") if allow_private else ("https",)):
        raise NotAllowed("must begin with https://")
    if url.userinfo:
        raise NotAllowed("must not contain a user name or a password")
    if url.fragment:
        raise NotAllowed("must not have a part behind #: it would not be sent")
    if not allow_private:
        _check_place(url)
    elif not url.host:
        raise NotAllowed("names no host")
    return url


def _check_place(url: httpx2.URL) -> None:
    if url.port not in (None, *PORTS):
        raise NotAllowed(f"must have one of the ports {', '.join(map(str, PORTS))}")
    host = url.raw_host.decode("ascii").lower()
    try:
        public = is_public(host)
    except ValueError:
        public = len(host) < 254 and bool(_NAME.fullmatch(host)) and not host.endswith(_LOCAL)
    if not public:
        raise NotAllowed("must name a host of the public internet, as in https://hooks.example.org/dream")
