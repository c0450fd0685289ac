"""The file in which ``simserve keys`` notes the tokens it makes and revokes: what they allow, never the tokens."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from simserve.errors import ConfigError
from simserve.server.auth.tokens import Token

log = logging.getLogger("simserve.server")


@dataclass(frozen=True)
class Entry:
    """One token that was made."""

    token: Token
    revoked: bool = False

    @property
    def state(self) -> str:
        """In a word, whether it counts."""
        return "revoked" if self.revoked else "expired" if self.token.expired else "active"


@dataclass
class TokenStore:
    """The tokens in ``path``; a file that is not there is an empty one, and a changed one is read again."""

    path: Path
    _read_at: tuple[int, int] | None = field(default=None, repr=False)
    _entries: dict[str, Entry] = field(default_factory=dict, repr=False)

    def entries(self) -> dict[str, Entry]:
        """All tokens by id, oldest first; raises :class:`ConfigError` for a file that cannot be understood."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return {}
        version = (stat.st_mtime_ns, stat.st_size)
        if version != self._read_at:
            self._entries = _read(self.path)
            self._read_at = version
        return self._entries

    def counts(self, token_id: str) -> bool:
        """Whether the token was made here and not revoked; nothing counts while the file cannot be read."""
        try:
            entry = self.entries().get(token_id)
        except ConfigError as error:
            log.error("%s", error)
            return False
        return entry is not None and not entry.revoked

    def add(self, token: Token) -> None:
        """Note a token that was made."""
        self._write({**self.entries(), token.id: Entry(token)})

    def revoke(self, name: str) -> list[Token]:
        """Revoke the token with that id, or all of that name; raises :class:`ConfigError` if there is none."""
        entries = dict(self.entries())
        found = [one for one in entries.values() if name in (one.token.id, one.token.name) and not one.revoked]
        if not found:
            raise ConfigError(f"{self.path} has no key {name} that could be revoked; see simserve keys list")
        self._write(entries | {one.token.id: replace(one, revoked=True) for one in found})
        return [one.token for one in found]

    def _write(self, entries: dict[str, Entry]) -> None:
        """Replace the file in one go, readable for its owner alone."""
        rows = [{**asdict(entry.token), "revoked": entry.revoked} for entry in entries.values()]
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                json.dump({"keys": rows}, file, indent=1)
            draft.replace(self.path)
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be written ({error}); give another --store") from None


def _read(path: Path) -> dict[str, Entry]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["keys"]
        entries = [Entry(revoked=row.pop("revoked"), token=Token(**row)) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is not a file of simserve keys ({error})") from None
    return {entry.token.id: entry for entry in entries}
