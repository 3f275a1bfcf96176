"""Finds the cause of a refused connection: a certificate, TLS, or a guard of this program."""

import ssl

from minillmlib.errors import ConnectError, TlsError
from minillmlib.transport.base import origin_of

# OpenSSL's numbers (X509_V_ERR_...): the host does not match; not yet valid, or expired.
_MISMATCH_CODES, _VALIDITY_CODES = (62, 63, 64), (9, 10)
_SHUTDOWN_WORDS = ("event loop", "shutdown", "closed")


def find_tls_failure(error: BaseException | None) -> ssl.SSLError | None:
    """Return the failure of TLS inside an HTTP library's error, or None."""
    while error is not None:
        for inner in (getattr(error, "certificate_error", None), getattr(error, "os_error", None)):
            if isinstance(inner, ssl.SSLError):
                return inner
        if isinstance(error, ssl.SSLError):
            return error
        error = error.__cause__ or error.__context__
    return None


def describe_tls_failure(failure: ssl.SSLError) -> str:
    """Return the cause in words; the number of an `SSLError` is not one of the system's."""
    if isinstance(failure, ssl.SSLCertVerificationError):
        return getattr(failure, "verify_message", "").rstrip(".") or "it cannot be verified"
    reason: str | None = getattr(failure, "reason", None)  # set by OpenSSL, and by nobody else
    if reason:
        return reason.replace("_", " ").lower()
    return failure.strerror or type(failure).__name__


def tls_error(failure: ssl.SSLError, url: str, via: str = "") -> TlsError:
    """Return the error for a connection that TLS refused, perhaps through the proxy `via`."""
    reason, origin = describe_tls_failure(failure), origin_of(url)
    origin += f" through the proxy {via}" if via else ""
    if not isinstance(failure, ssl.SSLCertVerificationError):
        return TlsError(f"TLS failed (is it an http address?) at {origin} ({reason})")
    code = getattr(failure, "verify_code", None)
    if code in _MISMATCH_CODES:
        advice = "is the address right?"
    elif code in _VALIDITY_CODES:
        advice = "the certificate or the clock of this machine is out of date"
    else:
        advice = (
            "if an authority of your own signs it, as that of a company or its proxy, name the "
            "file of that authority in the environment variable SSL_CERT_FILE"
        )
    return TlsError(f"the certificate of {origin} is not accepted: {reason} ({advice})")


def blocked_error(error: BaseException, url: str) -> ConnectError | None:
    """Return the error for a connection that a guard of this program forbids, or None.

    Guards such as pytest-socket raise a `RuntimeError` in place of opening a socket.
    """
    text = str(error)
    if not isinstance(error, RuntimeError) or any(word in text.lower() for word in _SHUTDOWN_WORDS):
        return None
    blocked = ConnectError(
        f"this program blocked the connection to {origin_of(url)} "
        f"({type(error).__name__}: {text}); allow this address, or give the generator a "
        "ScriptedTransport"
    )
    blocked.is_retryable = False
    return blocked
