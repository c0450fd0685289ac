"""``simserve smoke``: start a server (ours, or any command) or take one that runs, and see that it answers."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from typing import TYPE_CHECKING

from simserve.cli.options import number, whole_number
from simserve.errors import ConfigError

if TYPE_CHECKING:
    from simserve.bench.server_facts import Server
    from simserve.bench.smoke.checks import Check

DEFAULT_PORT = 8000
TIMEOUT_S, URL_TIMEOUT_S = 180.0, 10.0
OK, FAILED = 0, 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``simserve smoke``."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="MODEL | COMMAND",
        help="a model to serve by simulation, or after -- a whole command that starts a server",
    )
    parser.add_argument("--url", help="test the server there; start none")
    parser.add_argument("--port", type=whole_number, metavar="N", help=f"port of the server ({DEFAULT_PORT})")
    parser.add_argument("--model", metavar="NAME", help="what to ask for (the first that the server lists)")
    parser.add_argument("--timeout", type=number, metavar="S", help="wait so long for /health (180; 10 with --url)")
    parser.add_argument("--insecure", action="store_true", help="accept any TLS certificate")
    group = parser.add_argument_group("our server", "As for vLLM; a command of your own says these itself.")
    group.add_argument("--gpus", type=whole_number, metavar="N", help="devices that share the model (1)")
    group.add_argument("--max-len", metavar="N", help="longest sequence in tokens (the model's)")
    group.add_argument("--gpu-util", type=number, metavar="FRACTION", help="share of each device's memory to use (0.9)")
    group.add_argument("--hardware", metavar="NAME", help="hardware profile (that of simserve serve)")


def run(args: argparse.Namespace) -> int:
    """Test, print what was asked and answered; exit code 1 if an answer was not good."""
    from simserve.bench.options import Target
    from simserve.bench.server_facts import Server, request_headers
    from simserve.bench.smoke.child import check_port, started
    from simserve.bench.smoke.wait import wait_until_healthy
    from simserve.bench.wire.address import parse_address

    own = ("gpus", "max_len", "gpu_util", "hardware")
    given = [f"--{name.replace('_', '-')}" for name in own if getattr(args, name) is not None]
    if args.url is not None:
        if args.words or given or args.port is not None:
            extra = args.words[0] if args.words else given[0] if given else "--port"
            raise ConfigError(f"--url tests a server that runs, and {extra} is for one to start; leave one of them out")
        server = Server(parse_address(args.url), request_headers(Target()), args.insecure)
        wait_until_healthy(server, None, URL_TIMEOUT_S if args.timeout is None else args.timeout, _say)
        return _ask(args, server)
    command, port = _command(args, given)
    server = Server(parse_address(f"http://127.0.0.1:{port}"), request_headers(Target()), args.insecure)
    check_port("127.0.0.1", port)
    _say(f"starting: {shlex.join(command)}")
    with started(command) as child:
        seconds = wait_until_healthy(server, child, TIMEOUT_S if args.timeout is None else args.timeout, _say)
        _say(f"well after {seconds:.1f} s")
        code = _ask(args, server)
        _say("stopping the server")
    return code


def _ask(args: argparse.Namespace, server: Server) -> int:
    from simserve.bench.smoke.checks import run_checks

    checks = run_checks(server, args.model, _show)
    passed = sum(check.passed for check in checks)
    print(f"{passed}/{len(checks)} passed", flush=True)
    return OK if passed == len(checks) else FAILED


def _show(check: Check) -> None:
    tick = "✓" if check.passed else "✗"
    print(f"{tick} {check.name}")
    if check.asked:
        print(f"    asked     {check.asked}")
    if check.answered:
        print(f"    answered  {check.answered}")
    for line in (check.tokens, check.detail):
        if line:
            print(f"    {line}")
    sys.stdout.flush()


def _command(args: argparse.Namespace, given: list[str]) -> tuple[list[str], int]:
    """The command to start and the port where it will listen."""
    from simserve.bench.smoke.child import our_server

    words: list[str] = args.words
    if len(words) == 1 and len(shlex.split(words[0])) > 1:
        words = shlex.split(words[0])
    if len(words) > 1 or (words and shutil.which(words[0])):
        if given:
            raise ConfigError(f"{given[0]} is for our own server; put what yours needs into its command")
        said = _port_in(words)
        if said is not None and args.port not in (None, said):
            raise ConfigError(f"--port {args.port} and the command's own {said} differ; leave one of them out")
        return words, said or args.port or DEFAULT_PORT
    port = args.port or DEFAULT_PORT
    model = words[0] if words else None
    return our_server(
        model, port, hardware=args.hardware, devices=args.gpus, max_model_len=args.max_len, memory_share=args.gpu_util
    ), port


def _port_in(words: list[str]) -> int | None:
    """The port that a command names with ``--port``, or None."""
    for word, after in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name in ("--port", "--http-port", "--http_port"):
            text = value if equals else after
            return int(text) if text.isdecimal() else None
    return None


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
