"""What cannot be written because of its size."""

from __future__ import annotations


class TooLarge(Exception):
    """The schema wants more than an answer can hold; the message says what."""
