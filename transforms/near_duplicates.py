"""Near-duplicate texts: the same wire story as many outlets print it.

A text is the set of its runs of five words (shingles), two texts are as similar as the Jaccard index of their sets, and
a MinHash signature estimates it: Broder, On the Resemblance and Containment of Documents, 1997; Leskovec, Rajaraman and
Ullman, Mining of Massive Datasets, chapter 3, http://www.mmds.org.  The signature is datasketch 2.0's (MinHash of the
scheme affine32, seed 1, over 32-bit hashes of the shingles), computed for all shingles at once; datasketch itself would
bring SciPy along, 140 MB and more than a second at every start.

To find earlier copies of a story keep its bands in a dictionary: a text of similarity 0.8 shares a band with it in
99.99 % of all cases, one of THRESHOLD in 99 %, one of 0.5 in 55 %, one of 0.2 in 0.8 %.  What shares a band is a
candidate; it is a near-duplicate if its `similarity` reaches THRESHOLD, an estimate within 0.08 in 95 % of cases.

Five words, because stories made from a template differ in names and numbers only: every other word costs five runs.
Runs go over both ends of a text, or the first word, in headlines the company's name, and the last, often a number,
would cost one run only, and "LRAD EPS misses by $0.01, misses on revenue" would be nearly the same of another company.
The price: below 25 words one other word makes another text, so of headlines alone only those of the same words are
near-duplicates (capitals, signs and white space do not count), and none with the outlet's name added.
"""

import functools
import heapq
import itertools
import re
import zlib
from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["SHINGLE_WORDS", "SIGNATURE_SIZE", "THRESHOLD", "bands_of", "last_alike", "signature_of", "similarity"]

SHINGLE_WORDS = 5
"""Words in a row that are compared as one."""

SIGNATURE_SIZE = 128
"""Values in a signature; the standard error of a similarity s is sqrt(s * (1 - s) / SIGNATURE_SIZE), at most 0.044."""

THRESHOLD = 0.7
"""From this similarity on two texts are near-duplicates."""

_BANDS, _ROWS = 25, 5  # a band in common with probability 1 - (1 - s**5)**25; the last three values are in no band
_BEYOND = bytes(4 * (SHINGLE_WORDS - 1))  # in place of words before the first and after the last
_WORD = re.compile(r"\w+")
_MOST_KNOWN, _LONGEST_KNOWN = 1 << 15, 40  # words, and their characters: 20 MB at most
_CHUNK = 512  # shingles at once: their products stay in the cache, and a long text takes no more memory


def _permutations() -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Factors (odd, so that multiplication modulo 2**32 permutes) and summands, as datasketch draws them."""
    generator = np.random.RandomState(1)  # its stream is frozen by NumPy's policy, NEP 19
    halves = generator.randint(0, 1 << 31, SIGNATURE_SIZE, dtype=np.uint32)
    return halves * np.uint32(2) + np.uint32(1), generator.randint(0, 1 << 32, SIGNATURE_SIZE, dtype=np.uint32)


_FACTORS, _SUMMANDS = _permutations()


def signature_of(text: str) -> NDArray[np.uint32]:
    """MinHash of the shingles of `text`, [SIGNATURE_SIZE]; the same on every machine.

    Words are runs of letters, digits and underscores, in lower case; signs and white space do not count.  A text
    without words counts as one word.  Linear in the length of `text`.
    """
    hashes = _mixed(_shingles(text))
    smallest = np.full(SIGNATURE_SIZE, np.iinfo(np.uint32).max, np.uint32)
    for start in range(0, len(hashes), _CHUNK):
        permuted = _FACTORS[:, None] * hashes[start : start + _CHUNK]
        permuted += _SUMMANDS[:, None]
        np.minimum(smallest, permuted.min(axis=1), out=smallest)
    return smallest


def similarity(one: NDArray[np.unsignedinteger[Any]], other: NDArray[np.unsignedinteger[Any]]) -> float:
    """The estimated Jaccard index of the texts of two signatures, 0 to 1."""
    return float(np.count_nonzero(one == other)) / SIGNATURE_SIZE


def bands_of(signatures: NDArray[np.unsignedinteger[Any]]) -> NDArray[np.uint64]:
    """Keys, one a band, [..., 25], of signatures, [..., SIGNATURE_SIZE].

    Texts that have a key in common are candidates for near-duplicates.
    """
    values = signatures[..., : _BANDS * _ROWS].reshape(*signatures.shape[:-1], _BANDS, _ROWS)
    keys = np.broadcast_to(np.arange(_BANDS, dtype=np.uint64), values.shape[:-1])
    for row in range(_ROWS):
        keys = keys * np.uint64(0x9E3779B97F4A7C15) + values[..., row]
    return keys


def last_alike(signatures: NDArray[np.unsignedinteger[Any]]) -> NDArray[np.int64]:
    """For each of signatures, [texts, SIGNATURE_SIZE], the last one before it that is a near-duplicate; -1: none is."""
    keys = bands_of(signatures)
    _, place, count = np.unique(keys, return_inverse=True, return_counts=True)
    shared = count[place].reshape(keys.shape) > 1  # most texts share no band with any
    found = np.full(len(signatures), -1)
    seen: defaultdict[int, list[int]] = defaultdict(list)
    for at in np.flatnonzero(shared.any(axis=1)).tolist():
        bands = [seen[key] for key in keys[at][shared[at]].tolist()]
        candidates = heapq.merge(*map(reversed, bands), reverse=True)
        near = (other for other, _ in itertools.groupby(candidates) if _alike(signatures[at], signatures[other]))
        found[at] = next(near, -1)
        for band in bands:
            band.append(at)
    return found


def _alike(one: NDArray[np.unsignedinteger[Any]], other: NDArray[np.unsignedinteger[Any]]) -> bool:
    return similarity(one, other) >= THRESHOLD


def _shingles(text: str) -> NDArray[np.uint32]:
    """A hash of each run of words: the hashes of its words as digits of a number, modulo 2**32."""
    crcs = b"".join(map(_crcs_of, text.lower().split())) or _crc_of(text.replace("\n", " "))
    digits = _mixed(np.frombuffer(b"".join((_BEYOND, crcs, _BEYOND)), "<u4"))
    runs = len(digits) - SHINGLE_WORDS + 1
    hashes = digits[:runs].copy()
    for place in range(1, SHINGLE_WORDS):
        hashes *= np.uint32(0x9E3779B1)
        hashes += digits[place : runs + place]
    return hashes


def _crcs_of(blank_parted: str) -> bytes:
    """The CRC-32 of each word between two blanks, four bytes each; news has few different ones, so most are known."""
    return _known_crcs(blank_parted) if len(blank_parted) <= _LONGEST_KNOWN else _computed_crcs(blank_parted)


def _computed_crcs(blank_parted: str) -> bytes:
    return b"".join(map(_crc_of, _WORD.findall(blank_parted)))


_known_crcs = functools.lru_cache(_MOST_KNOWN)(_computed_crcs)


def _crc_of(word: str) -> bytes:
    return zlib.crc32(word.encode(errors="replace")).to_bytes(4, "little")


def _mixed(hashes: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """MurmurHash3's finalizer, a permutation: every bit of the result depends on every bit of the hash."""
    mixed = hashes ^ (hashes >> np.uint32(16))
    mixed *= np.uint32(0x85EBCA6B)
    mixed ^= mixed >> np.uint32(13)
    mixed *= np.uint32(0xC2B2AE35)
    mixed ^= mixed >> np.uint32(16)
    return mixed
