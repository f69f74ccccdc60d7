"""SHA-256 for the start path."""


def sha256(data: bytes) -> str:
    """Give the SHA-256 of ``data`` in hexadecimal, without hashlib (it loads all of OpenSSL)."""
    try:
        from _sha2 import sha256 as new  # CPython 3.12
    except ImportError:
        try:
            from _sha256 import sha256 as new  # CPython 3.11
        except ImportError:
            from hashlib import sha256 as new
    digest: str = new(data).hexdigest()
    return digest
