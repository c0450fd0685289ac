"""Parts of a message that are no text, as OpenAI's clients send them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

from simserve.server.fields import Fields


def _as_object(value: object) -> object:
    return {"url": value} if isinstance(value, str) else value


class ImageUrl(Fields):
    """Where a picture is: a ``data:`` URL has it in itself."""

    url: str
    detail: Literal["auto", "low", "high", "original"] = "auto"


class ImagePart(BaseModel):
    """A picture."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["image_url"]
    image_url: Annotated[ImageUrl, BeforeValidator(_as_object)]


class Sound(BaseModel):
    """Recorded sound, in base64."""

    data: str
    format: Literal["wav", "mp3", "flac", "ogg", "opus", "m4a"]


class AudioPart(BaseModel):
    """A sound."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["input_audio"]
    input_audio: Sound


class VideoUrl(Fields):
    """Where a film is."""

    url: str


class VideoPart(BaseModel):
    """A film, as vLLM's clients send it."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["video_url"]
    video_url: Annotated[VideoUrl, BeforeValidator(_as_object)]


MediaPart = ImagePart | AudioPart | VideoPart
