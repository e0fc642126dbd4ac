"""64-bit hashes of texts and files by content."""

import hashlib


def hash64(content: str | bytes) -> int:
    """Return 64 bits of BLAKE2b as a signed number, the range of a BIGINT."""
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), signed=True)
