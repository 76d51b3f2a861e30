"""One root seed becomes named, independent streams, and orders that need no memory.

All words come from Philox4x32-10 (Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3"), written
here in integer arithmetic and held by golden vectors, because library generators may change between releases.
"""

import hashlib
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]

_ROUNDS = 10
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_CHUNK = 1 << 13
"""Elements worked on at a time: the arrays of one chunk stay in the processor's cache."""


def key(seed: int, stream: str) -> int:
    """The 64-bit key of a named stream: the first eight bytes of SHA-256 of `seed/stream`.

    Streams in use: init, order, subset, drawn, units, special, novel, insertions, masks, bootstrap, dropout,
    splits, document-ids.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{stream}".encode()).digest()[:8], "little")


def generator(seed: int, stream: str) -> np.random.Generator:
    """A numpy generator for what no golden value rests on (bootstrap and the like)."""
    return np.random.Generator(np.random.Philox(key=key(seed, stream)))


def philox(counters: NDArray[np.uint32], *, key: int) -> NDArray[np.uint32]:
    """Philox4x32-10 of each counter: shape (..., 4) to shape (..., 4), the key's low word first."""
    lanes = [counters[..., lane].astype(np.uint64) for lane in range(4)]
    return np.stack(_philox(*lanes, key=key), axis=-1).astype(np.uint32)


def words(counters: ArrayLike, *, key: int, turn: ArrayLike = 0) -> Words:
    """One uniform 64-bit word for each counter, of the counter's shape (broadcast against `turn`).

    The Philox counter is (counter, turn), 64 bits each, and the word is the first half of the block.
    """
    low, high = np.broadcast_arrays(_unsigned(counters), _unsigned(turn))
    if low.size <= _CHUNK:
        return _words(low, high, key)
    shape, low, high = low.shape, low.reshape(-1), high.reshape(-1)
    parts = [_words(low[i : i + _CHUNK], high[i : i + _CHUNK], key) for i in range(0, low.size, _CHUNK)]
    return np.concatenate(parts).reshape(shape)


class Permutation:
    """A keyed family of permutations of range(n): any address, forwards or backwards, without a table of n.

    `turn` numbers the members of the family (a new order for each pass). Above 1,024 it is a Feistel network
    over Z_a x Z_b with a * b just above n (Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains",
    section 4), whose few surplus values are walked over; n is at most 2**62. Up to 1,024 the order is that of
    n words, so every one of the n! orders is equally likely.
    """

    def __init__(self, n: int, key: int) -> None:
        if not 0 <= n <= 1 << 62:
            raise ValueError(f"a permutation of {n} values; n is between 0 and 2**62")
        self.n = n
        self.key = key
        self._a = math.isqrt(n - 1) + 1 if n else 1
        self._b = -(-n // self._a)

    def __call__(self, i: ArrayLike, *, turn: ArrayLike = 0) -> Ints:
        """The value at each place i; raises IndexError outside range(n)."""
        return self._apply(i, turn, forwards=True)

    def inverse(self, j: ArrayLike, *, turn: ArrayLike = 0) -> Ints:
        """The place of each value j; raises IndexError outside range(n)."""
        return self._apply(j, turn, forwards=False)

    def _apply(self, i: ArrayLike, turn: ArrayLike, *, forwards: bool) -> Ints:
        given, turns = np.broadcast_arrays(np.asarray(i, dtype=np.int64), _unsigned(turn))
        if given.size and (given.min() < 0 or given.max() >= self.n):
            raise IndexError(f"an index outside 0 .. {self.n - 1}")
        shape, given, turns = given.shape, given.reshape(-1), turns.reshape(-1)
        if self.n <= _TABLE:
            return self._looked_up(given, turns, forwards=forwards).reshape(shape)
        rounds = range(_FEISTEL_ROUNDS) if forwards else range(_FEISTEL_ROUNDS - 1, -1, -1)
        value = self._network(given, turns, rounds)
        while (outside := np.flatnonzero(value >= self.n)).size:
            value[outside] = self._network(value[outside], turns[outside], rounds)
        return value.reshape(shape)

    def _network(self, value: Ints, turns: Words, rounds: range) -> Ints:
        """One pass of the network (forwards, or backwards when the rounds run down)."""
        left, right = np.divmod(value, self._b)
        sign = 1 if rounds.step > 0 else -1
        for number in rounds:
            into, of, size = (left, right, self._a) if number % 2 == 0 else (right, left, self._b)
            mixed = words(of + (number << 48), key=self.key, turn=turns) % np.uint64(size)
            np.mod(into + sign * mixed.astype(np.int64), size, out=into)
        return left * self._b + right

    def _looked_up(self, value: Ints, turns: Words, *, forwards: bool) -> Ints:
        """The same for small n, from the order of n words a turn."""
        result = np.empty_like(value)
        distinct, which = np.unique(turns, return_inverse=True)
        at_once = max(1, (1 << 18) // max(1, self.n))
        for first in range(0, distinct.size, at_once):
            drawn = words(np.arange(self.n), key=self.key, turn=distinct[first : first + at_once, None])
            table = np.argsort(drawn, axis=1, kind="stable")
            if not forwards:
                table = np.argsort(table, axis=1, kind="stable")
            inside = (which >= first) & (which < first + at_once)
            result[inside] = table[which[inside] - first, value[inside]]
        return result


_TABLE = 1024
_FEISTEL_ROUNDS = 8


def _unsigned(values: ArrayLike) -> Words:
    array = np.asarray(values)
    return array if array.dtype == np.uint64 else array.astype(np.int64).view(np.uint64)


def _words(low: Words, high: Words, key: int) -> Words:
    block = _philox(low & _LOW, low >> _HALF, high & _LOW, high >> _HALF, key=key)
    return block[0] | (block[1] << _HALF)


def _philox(c0: Words, c1: Words, c2: Words, c3: Words, *, key: int) -> tuple[Words, Words, Words, Words]:
    """The ten rounds; every word is a 32-bit value in 64 bits."""
    k0, k1 = key & 0xFFFFFFFF, key >> 32 & 0xFFFFFFFF
    for _ in range(_ROUNDS):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1 = (p1 >> _HALF) ^ c1 ^ np.uint64(k0), p1 & _LOW
        c2, c3 = (p0 >> _HALF) ^ c3 ^ np.uint64(k1), p0 & _LOW
        k0, k1 = k0 + _WEYL[0] & 0xFFFFFFFF, k1 + _WEYL[1] & 0xFFFFFFFF
    return c0, c1, c2, c3
