"""Pictures, films and sounds in messages: read as far as their size and length, and counted as a model would.

``sources`` reads what clients send (``mp4`` a film's tables), ``images`` and ``videos`` count tokens, ``counting``
picks the rules of a model.
"""

from __future__ import annotations

from simserve.server.media.counting import MediaRules, media_rules
from simserve.server.media.parts import AudioPart, ImagePart, MediaPart, VideoPart

__all__ = ["AudioPart", "ImagePart", "MediaPart", "MediaRules", "VideoPart", "media_rules"]
