"""Which brokers can be the doorbell, and what Celery is told of each. REDIS_URL says all there is to say."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

NONE = "none"
"""In place of a URL: there is no broker, and workers look into the database themselves."""
TLS = "rediss"
SENTINEL = "sentinel"
SCHEMES = ("redis", TLS, "redis+socket", SENTINEL)
_USE = "use Redis or Valkey: redis://, rediss:// (TLS), redis+socket:// or sentinel://"
_IN_PROCESS = "no message leaves its process or host, so that workers would never hear of a job"
_REFUSED = {
    "amqp": "Celery cannot turn off prefetching there: jobs would wait behind one that runs while other workers idle",
    "memory": _IN_PROCESS,
    "filesystem": _IN_PROCESS,
    "sqla": "the database is the queue of record already, and polling it for messages as well gains nothing",
}
_REFUSED |= {"amqps": _REFUSED["amqp"], "pyamqp": _REFUSED["amqp"]}
_ASKING_A_SENTINEL = {"socket_connect_timeout": 1, "socket_timeout": 1, "retry": None}
_VERIFICATIONS = ("required", "optional", "none", "CERT_REQUIRED", "CERT_OPTIONAL", "CERT_NONE")


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker in Celery's words."""

    url: str = field(repr=False)
    options: dict[str, Any]
    """To be added to the transport's options."""


def parse_broker(url: str) -> Broker:
    """What Celery must be told. Raises ValueError, with no secret in it, for what cannot be used."""
    if url == NONE:
        raise ValueError("Celery hears of jobs through a broker; without one, start workers by `python -m worker`")
    parts = [urlsplit(part.strip()) for part in url.split(";")]
    for part in parts:
        _check_scheme(part.scheme)
    scheme = parts[0].scheme
    if len(parts) > 1 and {part.scheme for part in parts} != {SENTINEL}:
        raise ValueError("several servers are reached through their sentinels: sentinel://HOST;sentinel://HOST")
    query = dict(pair for part in parts for pair in parse_qsl(part.query))
    options: dict[str, Any] = {}
    if scheme == SENTINEL:
        if not query.get("master_name"):
            raise ValueError("sentinel:// needs the name that the sentinels know the server by: add ?master_name=NAME")
        options = {"master_name": query.pop("master_name"), "sentinel_kwargs": _ASKING_A_SENTINEL}
    elif scheme == TLS:
        _check_tls(query)
        query.setdefault("ssl_cert_reqs", "required")  # left to itself, Celery would believe any certificate
    else:
        return Broker(url, options)
    bare = ";".join(part._replace(query="").geturl() for part in parts)
    return Broker(f"{bare}?{urlencode(query)}" if query else bare, options)


def _check_scheme(scheme: str) -> None:
    if scheme not in SCHEMES:
        kind = scheme.partition("+")[0]
        why = _REFUSED.get(kind, "it is not tested with this service")
        raise ValueError(f"{scheme}:// cannot be the broker: {why}; {_USE}" if scheme else f"it is no URL; {_USE}")


def _check_tls(query: dict[str, str]) -> None:
    if query.get("ssl_cert_reqs", "required") not in _VERIFICATIONS:
        raise ValueError(f"ssl_cert_reqs is one of {', '.join(_VERIFICATIONS[:3])}")
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        if name in query and not Path(query[name]).is_file():
            raise ValueError(f"{name} names no file: {query[name]}")
