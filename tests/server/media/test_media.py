"""Pictures and sounds in messages: how many tokens they take, and what is no picture and no sound."""

from __future__ import annotations

import base64
import io
import json
import struct
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from server.conftest import Client
from server.serving import serving
from simserve.server.errors import ApiError
from simserve.server.media import MediaRules, VideoPart, media_rules
from simserve.server.media.images import LlavaNextTiles, OpenAITiles, QwenPatches
from simserve.server.media.mp4 import read_track


def picture(width: int, height: int, kind: str = "PNG", colour: str = "red") -> str:
    raw = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(raw, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(raw.getvalue()).decode()}"


def sound(seconds: float) -> str:
    raw = io.BytesIO()
    with wave.open(raw, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\0\0" * int(8000 * seconds))
    return base64.b64encode(raw.getvalue()).decode()


def asking(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, *parts]}]


def image(url: str, **more: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def audio(data: str, form: str = "wav") -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": data, "format": form}}


def film(url: str) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": url}}


def box(kind: bytes, *inside: bytes) -> bytes:
    content = b"".join(inside)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def track(width: int, height: int, *runs: int) -> bytes:
    """A track of so many pictures; one of sound has no size."""
    sizes = box(b"tkhd", b"\0" * 76, struct.pack(">II", width << 16, height << 16))
    table = box(b"stts", struct.pack(">II", 0, len(runs)), *(struct.pack(">II", run, 512) for run in runs))
    return box(b"trak", sizes, box(b"mdia", box(b"hdlr", b"\0" * 24), box(b"minf", box(b"stbl", table))))


def mp4(*tracks: bytes) -> bytes:
    return box(b"ftyp", b"isom") + box(b"mdat", b"\0" * 99) + box(b"moov", box(b"mvhd", b"\0" * 100), *tracks)


def data_url(raw: bytes, kind: str = "video/mp4") -> str:
    return f"data:{kind};base64,{base64.b64encode(raw).decode()}"


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with serving() as client:
        yield client


async def usage(client: Client, *parts: dict[str, Any]) -> dict[str, Any]:
    async with client.chat(messages=asking(*parts), max_tokens=1) as response:
        body = await response.json()
        assert response.status == 200, body
        counted: dict[str, Any] = body["usage"]
        return counted


class TestRules:
    """Examples from what the models' makers publish."""

    @pytest.mark.parametrize(
        ("width", "height", "detail", "tokens"),
        [(1024, 1024, "high", 765), (2048, 4096, "high", 1105), (4096, 8192, "low", 85), (10, 10, "auto", 255)],
    )
    def test_openai(self, width: int, height: int, detail: str, tokens: int) -> None:
        assert OpenAITiles().tokens(width, height, detail) == tokens

    @pytest.mark.parametrize(("width", "height", "tokens"), [(1024, 768, 37 * 27 + 2), (20, 20, 6), (280, 28, 12)])
    def test_qwen2_vl(self, width: int, height: int, tokens: int) -> None:
        assert QwenPatches().tokens(width, height, "auto") == tokens

    def test_qwen2_vl_within_its_limits(self) -> None:
        rule = QwenPatches(max_pixels=1280 * 28 * 28)
        assert 1200 < rule.tokens(8000, 6000, "auto") <= 1282

    @pytest.mark.parametrize(("width", "height", "tokens"), [(1000, 1000, 2928), (1200, 600, 1752)])
    def test_llava_next(self, width: int, height: int, tokens: int) -> None:
        assert LlavaNextTiles().tokens(width, height, "auto") == tokens

    def test_they_follow_from_the_config(self, tmp_path: Path) -> None:
        def tokens(config: dict[str, Any], processor: dict[str, Any] | None = None) -> int:
            (tmp_path / "config.json").write_text(json.dumps(config))
            (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor or {}))
            return media_rules(tmp_path, 100).images.tokens(1024, 768, "auto")

        assert tokens({"model_type": "llama"}) == 765
        assert tokens({"model_type": "qwen2_5_vl", "vision_config": {"patch_size": 14}}) == 1001
        assert tokens({"model_type": "qwen2_vl", "vision_config": {}}, {"max_pixels": 200704}) < 260
        assert tokens({"model_type": "llava", "vision_config": {"image_size": 336, "patch_size": 14}}) == 576
        assert tokens({"model_type": "gemma3", "vision_config": {}, "mm_tokens_per_image": 256}) == 256
        assert media_rules(tmp_path, 100).audio_tokens_per_s == 10
        (tmp_path / "config.json").write_text('{"model_type": "qwen2_audio"}')
        assert media_rules(tmp_path, 100).audio_tokens_per_s == 25


class TestFilms:
    """Counted by their frames, where a model sees films."""

    QWEN: ClassVar[dict[str, Any]] = {"model_type": "qwen2_5_vl", "vision_config": {"patch_size": 14}}

    @staticmethod
    def rules(folder: Path, config: dict[str, Any], **processor: int) -> MediaRules:
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "video_preprocessor_config.json").write_text(json.dumps(processor))
        return media_rules(folder, 1000)

    def counted(self, rules: MediaRules, url: str) -> int:
        return len(rules.count(VideoPart.model_validate(film(url))).token_ids)

    @pytest.mark.parametrize(
        ("config", "tokens"),
        [
            (QWEN, 16 * 20 * 36 + 2),
            ({"model_type": "llava_onevision", "vision_config": {"image_size": 384, "patch_size": 14}}, 32 * 196 + 1),
            ({"model_type": "llava_next_video", "vision_config": {"image_size": 336, "patch_size": 14}}, 32 * 144),
        ],
    )
    def test_of_a_long_film_32_frames_are_seen(self, tmp_path: Path, config: dict[str, Any], tokens: int) -> None:
        rules = self.rules(tmp_path, config)
        assert self.counted(rules, "https://example.com/cat.mp4") == tokens
        assert self.counted(rules, data_url(mp4(track(0, 0, 9), track(1280, 720, 100, 200)))) == tokens

    def test_of_a_short_one_all(self, tmp_path: Path) -> None:
        rules = self.rules(tmp_path, self.QWEN)
        expected = 2 * 20 * 36 + 2  # three frames are two pictures
        assert self.counted(rules, data_url(mp4(track(1280, 720, 3)))) == expected
        pictures = ",".join(picture(1280, 720, "JPEG").partition(",")[2] for _ in range(3))
        assert self.counted(rules, f"data:video/jpeg;base64,{pictures}") == expected

    def test_the_limits_of_a_frame_are_the_processor_s(self, tmp_path: Path) -> None:
        small = self.rules(tmp_path, self.QWEN, max_pixels=100 * 28 * 28, min_pixels=28 * 28)
        assert self.counted(small, data_url(mp4(track(1280, 720, 2)))) <= 102

    @pytest.mark.parametrize(
        "url",
        [
            data_url(mp4()),
            data_url(mp4(track(0, 0, 5))),
            data_url(mp4(track(640, 480))),
            data_url(mp4(track(640, 480, 5))[:-5]),
            data_url(struct.pack(">I4s", 4, b"moov") * 9),
            data_url(b"\0" * 100),
            data_url(b"RIFF", "video/jpeg"),
            "data:video/mp4,plain",
            "file:///etc/passwd",
        ],
    )
    def test_what_is_no_film_is_refused(self, tmp_path: Path, url: str) -> None:
        with pytest.raises(ApiError):
            self.counted(self.rules(tmp_path, self.QWEN), url)

    @given(st.binary(max_size=200), st.integers(0, 200))
    def test_broken_tables_raise_nothing_else(self, raw: bytes, at: int) -> None:
        whole = mp4(track(640, 480, 5))
        read_track(raw)
        read_track(whole[:at] + raw + whole[at + len(raw) :])

    async def test_other_models_see_none(self, client: Client) -> None:
        async with client.chat(messages=asking(film("https://example.com/cat.mp4"))) as response:
            assert response.status == 400
            assert "At most 0 video(s)" in (await response.json())["error"]["message"]


async def test_a_picture_costs_what_its_size_costs(client: Client) -> None:
    plain = (await usage(client))["prompt_tokens"]
    for url, detail, tokens in (
        (picture(1024, 1024), "high", 765),
        (picture(64, 64, "JPEG"), "auto", 255),
        (picture(64, 64, "GIF"), "low", 85),
        ("https://example.com/cat.png", "auto", 765),
    ):
        counted = (await usage(client, image(url, detail=detail)))["prompt_tokens"]
        assert tokens <= counted - plain <= tokens + 3  # and a line break on either side


async def test_a_sound_costs_what_its_length_costs(client: Client) -> None:
    assert (await usage(client, audio(sound(3.25))))["prompt_tokens_details"]["audio_tokens"] == 33


async def test_the_same_picture_is_found_in_the_prefix_cache(client: Client) -> None:
    red, blue = picture(600, 600), picture(600, 600, colour="blue")
    first, again, other = [await usage(client, image(url)) for url in (red, red, blue)]
    cached = [one["prompt_tokens_details"]["cached_tokens"] for one in (first, again, other)]
    assert cached[0] == 0
    assert cached[1] > 500
    assert cached[2] < 50


@pytest.mark.parametrize(
    "part",
    [
        image("data:image/png;base64,AAAA"),
        image("data:image/png;base64,???"),
        image("data:image/png;base64,"),
        image("data:image/png,plain"),
        image("file:///etc/passwd"),
        image(picture(4, 4)[:60]),
        {"type": "image_url"},
        {"type": "image_url", "image_url": {"url": 7}},
        {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "huge"}},
        audio("AAAA"),
        audio("not base64!"),
        audio(sound(1)[:40]),
        audio(sound(0)),
        audio(sound(1), "midi"),
        film("https://x/y.mp4"),
        {"type": "file", "file": {"file_data": "AAAA"}},
        {"type": 7},
        {},
    ],
)
async def test_what_is_no_picture_and_no_sound_is_refused(client: Client, part: dict[str, Any]) -> None:
    async with client.chat(messages=asking(part)) as response:
        assert response.status == 400, await response.text()
        assert (await response.json())["error"]["param"].startswith("messages")
