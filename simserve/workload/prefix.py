"""Names for what prompts begin with: chained hashes of token blocks."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

HASH_BYTES = 8


def block_hashes(token_ids: Sequence[int], unit_tokens: int = 16) -> list[int]:
    """One signed 64-bit hash per full block of ``unit_tokens`` tokens, each chained to the one before.

    Two prompts with the same hash at any place are therefore equal up to the end of that block, as
    :class:`~simserve.workload.workload.PrefixUnits` asks. A last, partial block has no hash: it is never shared.
    Token ids are 0 or more and below 2**32. The hash is BLAKE2b, the same on every machine and in every process.
    """
    block_bytes = 4 * unit_tokens
    data = np.asarray(token_ids, dtype="<u4").tobytes()
    digest = b""
    digests = []
    for start in range(0, len(data) - block_bytes + 1, block_bytes):
        digest = blake2b(digest + data[start : start + block_bytes], digest_size=HASH_BYTES).digest()
        digests.append(digest)
    hashes: list[int] = np.frombuffer(b"".join(digests), dtype="<i8").tolist()
    return hashes
