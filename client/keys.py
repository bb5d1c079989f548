"""`Client.keys`: who may use the service, for its administrators."""

import secrets
import string
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from client.transport import Transport

SCOPES = ("jobs:read", "jobs:write", "datasets:write", "admin")
PREFIX, RANDOM_LETTERS, CHECK_LETTERS = "drk_", 37, 6
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase


class Keys:
    """Keys, as the service answers them. Raises `Forbidden` for everyone but administrators."""

    def __init__(self, transport: Transport):
        self._transport = transport

    def create(
        self, owner: str, scopes: Sequence[str] | None = None, name: str | None = None, expires_at: str | None = None
    ) -> dict[str, Any]:
        """A new key for `owner`, good until `expires_at` (RFC 3339) or until it is revoked.

        Without `scopes` it may do all but administer. Hand on the answer's `token`: it is not shown again.
        """
        body = {"owner": owner, "scopes": scopes and list(scopes), "name": name, "expires_at": expires_at}
        given = {field: value for field, value in body.items() if value is not None}
        return self._transport.json("POST", "/v1/keys", json=given)

    def list(self, limit: int | None = None, owner: str | None = None) -> Iterator[dict[str, Any]]:
        """Keys, newest first, those that are revoked too."""
        return self._transport.pages("/v1/keys", limit, {"owner": owner})

    def revoke(self, key_id: str) -> None:
        """End a key for good."""
        self._transport.request("DELETE", f"/v1/keys/{key_id}")


def new_token() -> str:
    """A fresh key for the service's DREAM_ADMIN_KEY: 220 random bits, and letters that tell it from a mistyped one."""
    random = "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_LETTERS))
    number, check = zlib.crc32(random.encode()), ""
    for _ in range(CHECK_LETTERS):
        number, digit = divmod(number, len(ALPHABET))
        check = ALPHABET[digit] + check
    return f"{PREFIX}{random}{check}"
