"""A random order of n items that needs no memory: position in, item out.

A stream that shuffles this way has one number of state, its position, and can be resumed anywhere,
also across the end of an epoch; n may be in the billions.
"""

from __future__ import annotations

import hashlib

ROUNDS = 6


def permuted(position: int, size: int, key: str) -> int:
    """The item at `position` of the order of `range(size)` that `key` names.

    For a fixed (size, key) it is a bijection of `range(size)`. A Feistel network permutes the next
    even power of two; positions that land outside are sent on until they fall inside
    (cycle walking; Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).
    """
    if not 0 <= position < size:
        raise IndexError(f"position {position} of {size}")
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    value = position
    while True:
        left, right = value >> half, value & mask
        for i in range(ROUNDS):
            left, right = right, left ^ (stable_hash(f"{key}/{i}/{right}") & mask)
        value = left << half | right
        if value < size:
            return value


def stable_hash(content: object) -> int:
    """64 bits that are the same in every process, of anything whose `repr` is stable."""
    digest = hashlib.blake2b(repr(content).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
