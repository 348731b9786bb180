"""URLs of the file host that carry their own permission, as presigned URLs of object stores do."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping

from tests.hub.errors import Forbidden


class Signer:
    """Signs a method and a path for a while; the secret is the server's own."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def url(self, base: str, path: str, *, method: str, seconds: float) -> str:
        """A URL that the file host serves to whoever has it."""
        expires = f"{time.time() + seconds:.3f}"
        return f"{base}{path}?Expires={expires}&Signature={self._sign(method, path, expires)}"

    def check(self, path: str, query: Mapping[str, str], *, method: str) -> None:
        """Refuse a URL that is unsigned, altered, for another method, or too old."""
        expires = query.get("Expires", "")
        if not hmac.compare_digest(query.get("Signature", ""), self._sign(method, path, expires)):
            raise Forbidden("SignatureDoesNotMatch")
        if float(expires) < time.time():
            raise Forbidden("Request has expired")

    def _sign(self, method: str, path: str, expires: str) -> str:
        return hmac.new(self._secret, f"{method} {path} {expires}".encode(), hashlib.sha256).hexdigest()
