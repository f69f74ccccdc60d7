"""SHA-256 for the start path, without hashlib (it loads all of OpenSSL)."""

import sys

try:
    # A module that is not there is looked for in every directory: the right one first, and once.
    if sys.version_info >= (3, 12):
        from _sha2 import sha256 as _new
    else:
        from _sha256 import sha256 as _new
except ImportError:
    from hashlib import sha256 as _new


def sha256(data: bytes) -> str:
    """Return the SHA-256 of ``data`` in hexadecimal."""
    digest: str = _new(data).hexdigest()
    return digest
