"""Several processes that do HTTP before the one that has the engines (``server.workers`` above 1).

The processes: ``supervisor`` is the parent, which has the engines and starts the others; ``worker`` is one of these.
Between them: ``channel`` carries messages over a Unix socket, ``codec`` says what is in them, ``host`` answers them in
the parent and ``remote`` asks in a worker. ``relay`` passes on what those who run the server ask, as it is.
"""

from __future__ import annotations

from simserve.server.workers.supervisor import serve_with_workers

__all__ = ["serve_with_workers"]
