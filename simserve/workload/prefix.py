"""Names for what prompts begin with: chained hashes of token blocks."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from simserve.workload.workload import PrefixUnits

HASH_BYTES = 8


def block_hashes(token_ids: Sequence[int], unit_tokens: int = 16, salt: str = "") -> list[int]:
    """One signed 64-bit hash per full block of ``unit_tokens`` tokens, each chained to the one before.

    Two prompts with the same hash at any place are therefore equal up to the end of that block, as
    :class:`~simserve.workload.workload.PrefixUnits` asks. A last, partial block has no hash: it is never shared.
    With another ``salt`` nothing is equal, as for adapters of one model.
    Token ids are 0 or more and below 2**32. The hash is BLAKE2b, the same on every machine and in every process.
    """
    block_bytes = 4 * unit_tokens
    data = np.asarray(token_ids, dtype="<u4").tobytes()
    digest = blake2b(salt.encode(), digest_size=HASH_BYTES).digest() if salt else b""
    digests = []
    for start in range(0, len(data) - block_bytes + 1, block_bytes):
        digest = blake2b(digest + data[start : start + block_bytes], digest_size=HASH_BYTES).digest()
        digests.append(digest)
    hashes: list[int] = np.frombuffer(b"".join(digests), dtype="<i8").tolist()
    return hashes


def prefix_from_hits(
    input_tokens: npt.NDArray[np.int64], hit_tokens: npt.NDArray[np.int64], unit_tokens: int = 16
) -> PrefixUnits:
    """Prefixes for prompts of which only is known how many tokens at most others had before them (``hit_tokens``).

    In a conversation a prompt begins with the whole prompt of an earlier turn. So a request with a hit of h tokens
    gets the units of the latest earlier request whose prompt has just h tokens in full units, or, where there is none,
    of the latest one that is long enough; if there is none either, units of its own.
    """
    units = (input_tokens // unit_tokens).tolist()
    ids: list[list[int]] = []
    used = 0
    for row, (count, hit) in enumerate(zip(units, hit_tokens.tolist(), strict=True)):
        shared = min(hit // unit_tokens, count)
        twins = [other for other in range(row) if units[other] == shared] if shared else []
        longer = [other for other in range(row) if units[other] >= shared] if shared and not twins else []
        begin = ids[(twins or longer)[-1]][:shared] if twins or longer else []
        own = count - len(begin)
        ids.append(begin + list(range(used, used + own)))
        used += own
    offsets = np.cumsum([0, *(len(row_ids) for row_ids in ids)], dtype=np.int64)
    return PrefixUnits(unit_tokens, np.array([unit for row_ids in ids for unit in row_ids], dtype=np.int64), offsets)
