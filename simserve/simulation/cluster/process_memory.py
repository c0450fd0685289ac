"""A thousand engines in one process: keeps their tens of megabytes from costing more than the work on them.

What one step of one engine touches lies all over memory, and the next step is another engine's. Most of the price of
that is looking up addresses, because the processor remembers those of 2,000 pages or so and a page has 4 kB. Huge pages
have 2 MB. Nothing here changes a result.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

HUGE_PAGE_BITS = 21
MADV_COLLAPSE = 25
"""Of Linux from 6.1 on (madvise(2)): make one huge page of what is there; others refuse it, and nothing happens."""

ENOUGH_MEMBERS = 64
"""Fewer engines fit the processor's tables as they are."""


@contextmanager
def for_many_members(members: int) -> Iterator[None]:
    """Without the garbage collector's rounds through everything there is: a run makes no cycles worth collecting."""
    if members < ENOUGH_MEMBERS or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def use_huge_pages() -> None:
    """Move Python's objects to huge pages, where the system knows how; to be called when most of them are there."""
    if not sys.platform.startswith("linux"):
        return
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for page in {id(each) >> HUGE_PAGE_BITS for each in gc.get_objects()}:
        madvise(page << HUGE_PAGE_BITS, 1 << HUGE_PAGE_BITS, MADV_COLLAPSE)
