"""The size of a picture or a film and the length of a sound, from their bytes; nothing is fetched from anywhere."""

from __future__ import annotations

import base64
import binascii
import io
from dataclasses import dataclass
from hashlib import blake2b

import imagesize
from tinytag import TinyTag, TinyTagException

from simserve.server.errors import ApiError
from simserve.server.media.mp4 import read_track
from simserve.server.media.parts import AudioPart, ImagePart, VideoPart

ASSUMED_SIZE = (1024, 1024)
"""Width and height of a picture behind a URL, which is not fetched: a simulation needs its size alone."""

ASSUMED_FILM = (1280, 720, 300)
"""Width, height and frames of a film behind a URL: ten seconds of it."""

MAX_SIDE = 20_000


@dataclass(frozen=True)
class Picture:
    """``digest`` stands for what is on it: equal pictures have equal tokens."""

    width: int
    height: int
    detail: str
    digest: bytes


@dataclass(frozen=True)
class Film:
    """``digest`` as of a picture."""

    width: int
    height: int
    frames: int
    digest: bytes


@dataclass(frozen=True)
class Recording:
    """``digest`` as of a picture."""

    seconds: float
    digest: bytes


def picture_of(part: ImagePart) -> Picture:
    """Read a picture's size; raises :class:`ApiError` (400) for a ``data:`` URL without a picture in it."""
    url, detail = part.image_url.url, part.image_url.detail
    scheme = url.partition(":")[0].lower()
    if scheme in ("http", "https"):
        return Picture(*ASSUMED_SIZE, detail, _digest(url.encode("utf-8", "surrogatepass")))
    if scheme != "data":
        raise ApiError("The URL of a picture must begin with data:, http: or https:.", param="messages")
    head, comma, payload = url.partition(",")
    if not comma or not head.endswith(";base64"):
        raise ApiError("The data: URL of a picture must be in base64.", param="messages")
    raw = _bytes_of(payload, "picture")
    return Picture(*_size_of(raw), detail, _digest(raw))


def film_of(part: VideoPart) -> Film:
    """Read a film's size and number of frames; raises :class:`ApiError` (400) for what is no film.

    A film is a ``data:`` URL with MP4 in it or, of type video/jpeg, with pictures between commas, as in vLLM.
    """
    url = part.video_url.url
    scheme = url.partition(":")[0].lower()
    if scheme in ("http", "https"):
        return Film(*ASSUMED_FILM, _digest(url.encode("utf-8", "surrogatepass")))
    head, comma, payload = url.partition(",")
    if scheme != "data" or not comma or not head.endswith(";base64"):
        raise ApiError("The URL of a video must begin with http:, https: or data:, in base64.", param="messages")
    if head.lower().startswith("data:video/jpeg"):
        frames = [_bytes_of(one, "video") for one in payload.split(",")]
        width, height = _size_of(frames[0])
        return Film(width, height, len(frames), _digest(b"".join(frames)))
    raw = _bytes_of(payload, "video")
    track = read_track(raw)
    if track is None or max(track.width, track.height) > MAX_SIDE:
        raise ApiError("The video's size cannot be read; send MP4, or JPEG pictures as video/jpeg.", param="messages")
    return Film(track.width, track.height, track.frames, _digest(raw))


def recording_of(part: AudioPart) -> Recording:
    """Read a sound's length; raises :class:`ApiError` (400) for what is no sound."""
    raw = _bytes_of(part.input_audio.data, "sound")
    try:
        tag = TinyTag.get(filename=f"sound.{part.input_audio.format}", file_obj=io.BytesIO(raw))
        seconds = tag.duration
    except (TinyTagException, ValueError, ArithmeticError, LookupError, OSError):
        seconds = None
    except Exception:  # struct.error and its like, for a header that is cut off
        seconds = None
    if not seconds or seconds <= 0:
        raise ApiError(f"The sound's length cannot be read; is it really {part.input_audio.format}?", param="messages")
    return Recording(float(seconds), _digest(raw))


def _size_of(raw: bytes) -> tuple[int, int]:
    """Width and height of a picture."""
    try:
        width, height = imagesize.get(io.BytesIO(raw))
    except Exception:  # whatever a broken header makes it raise
        width, height = -1, -1
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise ApiError("The picture's size cannot be read; send PNG, JPEG, GIF or WebP.", param="messages")
    return int(width), int(height)


def _bytes_of(text: str, what: str) -> bytes:
    try:
        raw = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(f"The {what} is not valid base64.", param="messages") from None
    if not raw:
        raise ApiError(f"The {what} is empty.", param="messages")
    return raw


def _digest(raw: bytes) -> bytes:
    return blake2b(raw, digest_size=16, person=b"simserve-media").digest()
