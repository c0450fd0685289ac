"""``simserve keys``: make, list and revoke signed keys for ``simserve serve``."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from simserve.config import Permission
from simserve.errors import ConfigError

if TYPE_CHECKING:
    from simserve.server.auth.store import TokenStore
    from simserve.server.settings import AuthSection

PERMISSIONS = get_args(Permission)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``simserve keys``."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, purpose: str) -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=purpose, formatter_class=parser.formatter_class, allow_abbrev=False)
        added.add_argument("--config", metavar="FILE", help="the server's settings, for auth.secret_key and auth.store")
        added.add_argument("--store", type=Path, metavar="FILE", help="where keys are noted (auth.store)")
        return added

    create = action("create", "make a key and print it; nobody can print it again")
    create.add_argument("--name", required=True, metavar="NAME", help="whose key it is (required)")
    create.add_argument(
        "--permissions", nargs="+", choices=PERMISSIONS, default=["all"], metavar="WORD", help=", ".join(PERMISSIONS)
    )
    create.add_argument("--expires", metavar="DURATION", help="such as '30 days' (never)")
    create.add_argument("--requests-per-minute", metavar="N", help="its own limit (the server's)")
    create.add_argument("--tokens-per-minute", metavar="N", help="its own limit (the server's)")
    listing = action("list", "the keys that were made, and whether they count")
    listing.add_argument("--json", action="store_true", help="JSON, not a table")
    revoke = action("revoke", "take keys back; a running server notices at once")
    revoke.add_argument("key", metavar="ID|NAME", help="the id of one, or the name of several")


def run(args: argparse.Namespace) -> int:
    """Do what was asked for; raises :class:`ConfigError` if it cannot be."""
    {"create": _create, "list": _list, "revoke": _revoke}[args.action](args)
    return 0


def _create(args: argparse.Namespace) -> None:
    from simserve.server.auth import Token, sign

    auth = _settings(args)
    if auth.secret_key is None:
        raise ConfigError(
            "no secret to sign with; set auth.secret_key in --config, or SIMSERVE_AUTH__SECRET_KEY, to what"
            " `openssl rand -hex 32` prints"
        )
    now_s = int(time.time())
    token = Token(
        id=secrets.token_hex(8),
        name=args.name,
        permissions=args.permissions,
        created_s=now_s,
        expires_s=None if args.expires is None else now_s + _seconds(args.expires),
        requests_per_minute=_limit("--requests-per-minute", args.requests_per_minute),
        tokens_per_minute=_limit("--tokens-per-minute", args.tokens_per_minute),
    )
    if auth.store is not None:
        _store(auth).add(token)
        print(f"{token.name}: noted as {token.id} in {auth.store}", file=sys.stderr)
    else:
        print("There is no --store, so this key cannot be listed or revoked.", file=sys.stderr)
    print(sign(token, auth.secret_key.get_secret_value()))


def _list(args: argparse.Namespace) -> None:
    entries = _store(_settings(args)).entries().values()
    rows = [
        {
            "id": one.token.id,
            "name": one.token.name,
            "state": one.state,
            "permissions": " ".join(one.token.permissions),
            "created": _date(one.token.created_s),
            "expires": "never" if one.token.expires_s is None else _date(one.token.expires_s),
        }
        for one in entries
    ]
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*(rows[0] if rows else ("id", "name", "state")), box=None)
    for row in rows:
        table.add_row(*row.values())
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _revoke(args: argparse.Namespace) -> None:
    for token in _store(_settings(args)).revoke(args.key):
        print(f"revoked {token.id} ({token.name})")


def _settings(args: argparse.Namespace) -> AuthSection:
    """What the file and the environment say of keys; ``--store`` goes before it."""
    from simserve.server.settings import environment_layer, file_layer, load_settings

    path = args.config or os.environ.get("SIMSERVE_CONFIG")
    settings = load_settings([*([file_layer(Path(path))] if path else []), environment_layer(os.environ)])
    return settings.auth if args.store is None else settings.auth.model_copy(update={"store": args.store})


def _store(auth: AuthSection) -> TokenStore:
    from simserve.server.auth import TokenStore

    if auth.store is None:
        raise ConfigError("no file of keys; give --store FILE, or set auth.store in --config")
    return TokenStore(auth.store)


def _seconds(text: str) -> int:
    from pydantic_core import PydanticCustomError

    from simserve.server.settings.quantities import SECONDS, times

    try:
        return int(times(text, SECONDS, "a duration such as 30 days"))
    except PydanticCustomError as error:
        raise ConfigError(f"--expires {text}: {error.message()}") from None


def _limit(flag: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise ConfigError(f"{flag} must be a whole number above 0, not {text}")
    return int(text)


def _date(time_s: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(time_s))
