"""Access to the status page from other machines: a token, which a browser keeps as a cookie, and a certificate."""

from __future__ import annotations

import hashlib
import re
import secrets
import ssl
from dataclasses import dataclass, field
from email.message import Message
from hmac import compare_digest
from pathlib import Path

from runtime.errors import UsageError
from runtime.urls import resolve_secret

_MIN_TOKEN_CHARACTERS = 16
"""Length of the shortest token that is accepted: the page does not limit the number of attempts."""
_COOKIE_AGE_S = 30 * 24 * 3600


@dataclass(frozen=True)
class Access:
    """Token that requests need, and the context of TLS; without a token every request is answered."""

    token: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None

    def accepts(self, token: str) -> bool:
        """Whether a token is the right one; takes the same time for every wrong one."""
        return compare_digest(_digest(token), _digest(self.token))

    def allows(self, headers: Message, port: int) -> bool:
        """Whether a request to `port` has the token, as `Authorization: Bearer TOKEN` or as the value of `cookie`."""
        if not self.token:
            return True
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.accepts(token.strip()):
            return True
        cookies = (cookie.strip().partition("=") for cookie in headers.get("Cookie", "").split(";"))
        return any(
            name == _cookie_name(port) and compare_digest(value.encode(), _digest(self.token).encode())
            for name, _, value in cookies
        )

    def cookie(self, port: int) -> str:
        """Return the value of `Set-Cookie` for a browser that has sent the right token; it holds only a digest."""
        name, options = _cookie_name(port), f"Path=/; Max-Age={_COOKIE_AGE_S}; HttpOnly; SameSite=Lax"
        return f"{name}={_digest(self.token)}; {options}" + ("; Secure" if self.tls else "")


OPEN = Access()
"""No token, no certificate."""


def open_access(token: str | None, certificate: Path | None, key: Path | None) -> Access:
    """Return the access that the options ask for.

    `token` may hold `${NAME}` from the environment or be `@FILE`. `key` is None where the certificate's file has it.
    Raises UsageError for a short token, and for files that cannot be used.
    """
    if certificate is None and key is not None:
        raise UsageError("--serve-key without a certificate", key, hint="give its certificate as --serve-cert")
    return Access(_read_token(token) if token is not None else "", load_tls(certificate, key) if certificate else None)


def make_token() -> str:
    """Return a new random token of 128 bits."""
    return secrets.token_urlsafe(16)


def load_tls(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """Return the context of a server with this certificate; raises UsageError."""
    for path in (certificate, key or certificate):
        if not path.is_file():
            raise UsageError("no such file", path, hint="give --serve-cert and --serve-key as PEM files")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=lambda: "-")  # or OpenSSL asks for it on the terminal
    except OSError as error:
        reason = error.reason or "not PEM" if isinstance(error, ssl.SSLError) else error.strerror
        hint = "give --serve-cert and the --serve-key that belongs to it as PEM files, the key without a password"
        raise UsageError(f"certificate cannot be used ({reason})", certificate, hint=hint) from error
    return context


def _read_token(text: str) -> str:
    token = resolve_secret(text)
    if len(token) < _MIN_TOKEN_CHARACTERS or not re.fullmatch(r"[!-~]+", token):
        raise UsageError(
            f"--serve-token is not {_MIN_TOKEN_CHARACTERS} or more ASCII characters without spaces",
            hint="make one with: openssl rand -hex 16",
        )
    return token


def _cookie_name(port: int) -> str:
    return f"deblur_{port}"  # browsers share cookies between the ports of a host


def _digest(token: str) -> str:
    return hashlib.sha256(b"deblur status page " + token.encode(errors="replace")).hexdigest()
