"""Pictures and sounds in messages: read as far as their size and length, and counted as a model would count them.

``sources`` reads what clients send, ``images`` and ``audio`` count tokens, ``counting`` picks the rules of a model.
"""

from __future__ import annotations

from simserve.server.media.counting import MediaRules, media_rules
from simserve.server.media.parts import AudioPart, ImagePart, MediaPart

__all__ = ["AudioPart", "ImagePart", "MediaPart", "MediaRules", "media_rules"]
