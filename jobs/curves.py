"""The only edge to the package `cryptography`: Ed25519 (RFC 8032) and HPKE (RFC 9180) over raw 32-byte keys.

It is an extra (`pip install 'dayfly[crypto]'`), imported when a key of these kinds is used and not before: signatures
by HMAC and everything else do without it.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from dayfly.jobs.errors import DayflyError

RAW_BYTES = 32


class WrongKeyError(ValueError):
    """What was sealed cannot be opened, or was signed, with another key; or it has been altered."""


def generate_ed25519() -> bytes:
    """A new secret key. Raises DayflyError without the package."""
    return bytes(_ed25519().Ed25519PrivateKey.generate().private_bytes_raw())


def generate_x25519() -> bytes:
    """A new secret key. Raises DayflyError without the package."""
    return bytes(_x25519().X25519PrivateKey.generate().private_bytes_raw())


def public_ed25519(secret: bytes) -> bytes:
    return bytes(_ed25519().Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw())


def public_x25519(secret: bytes) -> bytes:
    return bytes(_x25519().X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw())


def sign(secret: bytes, statement: bytes) -> bytes:
    return bytes(_ed25519().Ed25519PrivateKey.from_private_bytes(secret).sign(statement))


def verify(public: bytes, signature: bytes, statement: bytes) -> None:
    """Raises WrongKeyError."""
    from cryptography.exceptions import InvalidSignature

    try:
        _ed25519().Ed25519PublicKey.from_public_bytes(public).verify(signature, statement)
    except InvalidSignature as error:
        raise WrongKeyError("the signature is not this key's, or of other bytes") from error


def seal(public: bytes, value: bytes, info: bytes) -> bytes:
    """`value` for the holder of the secret half alone, bound to `info`: HPKE's base mode, single shot."""
    return bytes(_suite().encrypt(value, _x25519().X25519PublicKey.from_public_bytes(public), info=info))


def unseal(secret: bytes, sealed: bytes, info: bytes) -> bytes:
    """Raises WrongKeyError: another key, another `info`, or altered."""
    key = _x25519().X25519PrivateKey.from_private_bytes(secret)
    from cryptography.exceptions import InvalidTag

    try:
        return bytes(_suite().decrypt(sealed, key, info=info))
    except InvalidTag as error:
        raise WrongKeyError("it was sealed for another key, under another name, or has been altered") from error


def _suite() -> Any:
    """DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM."""
    try:
        from cryptography.hazmat.primitives import hpke
    except ImportError as error:
        raise _missing() from error
    return hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


def _ed25519() -> ModuleType:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise _missing() from error
    return ed25519


def _x25519() -> ModuleType:
    try:
        from cryptography.hazmat.primitives.asymmetric import x25519
    except ImportError as error:
        raise _missing() from error
    return x25519


def _missing() -> DayflyError:
    return DayflyError(
        "keys of the kinds ed25519 and x25519 need the package cryptography, which is not installed or too old",
        remedy="pip install 'dayfly[crypto]'",
    )
