"""The server's secret: what keys are hashed under, and what webhooks sign with."""

import hashlib
import hmac
import os
import secrets

from jobs.settings import Settings

FILE = "secret"
BYTES = 32


def server_secret(settings: Settings) -> bytes:
    """DREAM_SECRET, or one that is made at the first call and kept in `home`, readable by its owner alone.

    Hosts that share a database need the same one. Whoever changes it makes every key and webhook signature invalid.
    """
    if settings.secret:
        return settings.secret.get_secret_value().encode()
    path = settings.home / FILE
    settings.home.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        fresh = path.with_name(f".{FILE}.{os.getpid()}.{secrets.token_hex(4)}")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_hex(BYTES))
        try:
            os.link(fresh, path)  # whoever is first wins, and a reader never sees half of it
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return path.read_bytes()


def derive(secret: bytes, purpose: str) -> bytes:
    """32 bytes for one purpose, from which no other and not the secret can be found."""
    return hmac.digest(secret, purpose.encode(), hashlib.sha256)
