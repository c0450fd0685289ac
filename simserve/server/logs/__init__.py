"""What is logged, how it is written, and when a file is put aside.

``setup`` follows the settings, ``formats`` makes lines, ``background`` has them written, ``files`` rotates, ``access``
tells of each request.
"""

from __future__ import annotations

from simserve.server.logs.access import access_log, note
from simserve.server.logs.setup import set_up_logging

__all__ = ["access_log", "note", "set_up_logging"]
