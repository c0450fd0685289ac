"""``simserve bench multi-turn``: conversations, by the options of the script that people know for it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simserve.cli.bench_options import pairs
from simserve.cli.options import number, whole_number
from simserve.cli.simulate import PIPE_COLUMNS
from simserve.errors import ConfigError

if TYPE_CHECKING:
    from simserve.bench.multi_turn.clients import ClientOptions
    from simserve.bench.multi_turn.conversations import Conversation
    from simserve.bench.multi_turn.run import MultiTurnRun
    from simserve.bench.tokens import TokenCounter

DEFAULT_URL = "http://localhost:8000"
PATH = "/v1/chat/completions"
OK, MISSED, INTERRUPTED = 0, 1, 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``simserve bench multi-turn``."""
    group = parser.add_argument_group("conversations")
    group.add_argument(
        "-i",
        "--input-file",
        type=Path,
        required=True,
        metavar="FILE",
        help="JSON: a list of conversations, or how to generate them",
    )
    group.add_argument("-o", "--output-file", type=Path, metavar="FILE", help="write them here with the real answers")
    group.add_argument("--max-turns", type=whole_number, metavar="N", help="messages of each, answers included (all)")
    group.add_argument("--seed", type=whole_number, default=0, metavar="N", help="the same seed asks the same (0)")
    group = parser.add_argument_group("server")
    group.add_argument("-m", "--model", metavar="NAME", help="what to ask for (the first that the server lists)")
    group.add_argument("--served-model-name", metavar="NAME", help="what the server calls it (--model)")
    group.add_argument("-u", "--url", default=DEFAULT_URL, help=f"the server's address ({DEFAULT_URL})")
    group.add_argument("--api-key", metavar="KEY", help="key (OPENAI_API_KEY)")
    group.add_argument(
        "--header", action="append", default=[], metavar="NAME=VALUE", help="an HTTP header; again for more"
    )
    group.add_argument("--insecure", action="store_true", help="accept any TLS certificate")
    group.add_argument("--tokenizer", metavar="NAME", help="folder, file or hub name (the model's, if it is here)")
    group.add_argument("--trust-remote-code", action="store_true", help="let the tokenizer run code of its own")
    _add_load(parser)
    _add_output(parser)


def _add_load(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("load")
    group.add_argument("-p", "--num-clients", type=whole_number, default=1, metavar="N", help="clients (1)")
    group.add_argument("--processes", type=whole_number, default=1, metavar="N", help="processes that run them (1)")
    group.add_argument(
        "-k",
        "--max-active-conversations",
        type=whole_number,
        metavar="N",
        help="conversations under way at once, over all clients (one each)",
    )
    group.add_argument("-n", "--max-num-requests", type=whole_number, metavar="N", help="most turns, over all clients")
    group.add_argument(
        "--request-rate",
        type=number,
        default=0.0,
        metavar="R",
        help="turns per second of each client, Poisson; 0 is one after the other (0)",
    )
    group.add_argument("--warmup-step", action="store_true", help="ask every first question once before")
    group.add_argument(
        "--warmup-percentages",
        default="0%",
        metavar="P,P",
        help="also report without the first so many percent of turns (0%%)",
    )
    group.add_argument(
        "--early-stop",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="end when the first client has nothing left to do (no: finish all)",
    )
    group.add_argument(
        "--conversation-sampling",
        choices=("round_robin", "random"),
        default="round_robin",
        help="whose turn it is among a client's conversations (round_robin)",
    )
    group.add_argument(
        "--limit-min-tokens",
        type=whole_number,
        default=0,
        metavar="N",
        help="least tokens of an answer; 0 as recorded, below 0 no limit (0)",
    )
    group.add_argument("--limit-max-tokens", type=whole_number, default=0, metavar="N", help="most; likewise (0)")
    group.add_argument("--max-retries", type=whole_number, default=0, metavar="N", help="attempts after a failure (0)")
    group.add_argument(
        "--request-timeout-sec",
        type=number,
        default=120.0,
        metavar="S",
        help="give a turn up after so long, or 0.2 s per token if that is more (120)",
    )
    group.add_argument("--no-stream", action="store_true", help="whole answers, not token by token")
    group.add_argument(
        "--send-conversation-id", action="store_true", help="send it as conversation_id and X-Session-ID"
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument("-e", "--excel-output", action="store_true", help="write a workbook (or CSV files)")
    group.add_argument("--stats-json-output", type=Path, metavar="FILE", help="write the statistics as JSON")
    group.add_argument("--verify-output", action="store_true", help="fail if an answer is not the recorded one")
    group.add_argument("--print-content", action="store_true", help="print the conversations as they went")
    group.add_argument("-v", "--verbose", action="store_true", help="print every turn")


def run(args: argparse.Namespace) -> int:
    """Run the conversations, print statistics, write what was asked for."""
    from simserve.bench.multi_turn.run import run_multi_turn
    from simserve.bench.report.live import live
    from simserve.bench.server_facts import Server, first_model
    from simserve.bench.tokens import TokenizerOptions, find_counter
    from simserve.bench.wire.address import parse_address

    percents = _percents(args.warmup_percentages)
    address, headers = parse_address(args.url), _headers(args)
    card = None if args.model else first_model(Server(address, headers, args.insecure))
    model = args.model or (card.root if card else "")
    found = find_counter(TokenizerOptions(args.tokenizer, trust_remote_code=args.trust_remote_code), model)
    if found.note:
        _say(found.note)
    conversations = _conversations(args, found.counter)
    options = _options(args, args.served_model_name or (card.name if card else model), headers)
    _say(_introduction(args, conversations))
    with live(sys.stderr, None, f"{model} at {args.url}") as on_progress:
        done = run_multi_turn(
            address, options, found.counter, conversations, on_progress,
            clients=args.num_clients, processes=args.processes, warmup=args.warmup_step, insecure=args.insecure,
        )  # fmt: skip
    _print(args, done, percents)
    _write(args, done, percents, model)
    if done.was_interrupted:
        return INTERRUPTED
    return MISSED if done.failures or not done.turns or (args.verify_output and done.mismatches) else OK


def _conversations(args: argparse.Namespace, counter: TokenCounter) -> list[Conversation]:
    from simserve.bench.multi_turn.conversations import parse_conversations, read_json
    from simserve.bench.multi_turn.generate import generate_conversations, is_generation

    if args.max_turns is not None and args.max_turns < 1:
        raise ConfigError(f"--max-turns is {args.max_turns}; give at least 1")
    content = read_json(args.input_file)
    if is_generation(content):
        made = generate_conversations(args.input_file, content, counter, args.seed, args.max_turns)
        if content.get("print_stats"):
            tokens = [counter.count(message.content) for one in made for message in one.messages if message.content]
            turns = sum(len(one.messages) for one in made)
            _say(f"generated {len(made):,} conversations, {turns:,} messages, {sum(tokens):,} tokens of the users")
        return made
    return parse_conversations(str(args.input_file), content, args.max_turns)


def _options(args: argparse.Namespace, model: str, headers: dict[str, str]) -> ClientOptions:
    from simserve.bench.multi_turn.clients import ClientOptions
    from simserve.bench.multi_turn.turns import TurnOptions

    clients = args.num_clients
    for name in ("num_clients", "processes", "max_active_conversations", "max_num_requests"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} is {value}; give at least 1")
    active = args.max_active_conversations or clients
    if active < clients:
        raise ConfigError(
            f"--max-active-conversations {active} leaves some of {clients} clients without one; give more"
        )
    limits = (args.limit_min_tokens, args.limit_max_tokens)
    return ClientOptions(
        path=PATH,
        headers=headers,
        turn=TurnOptions(model, *(None if limit < 0 else limit for limit in limits), stream=not args.no_stream),
        rate=args.request_rate,
        max_requests=None if args.max_num_requests is None else -(-args.max_num_requests // clients),
        max_active=active // clients,
        sampling=args.conversation_sampling,
        early_stop=args.early_stop,
        max_retries=args.max_retries,
        timeout_s=args.request_timeout_sec,
        send_conversation_id=args.send_conversation_id,
        seed=args.seed,
    )


def _headers(args: argparse.Namespace) -> dict[str, str]:
    key = args.api_key or os.environ.get("OPENAI_API_KEY")
    return ({"Authorization": f"Bearer {key}"} if key else {}) | pairs(args.header, "--header")


def _percents(text: str) -> tuple[float, ...]:
    try:
        percents = tuple(float(part.strip().removesuffix("%")) for part in text.split(","))
    except ValueError:
        percents = (-1.0,)
    if not all(0 <= percent < 100 for percent in percents):
        raise ConfigError(f"--warmup-percentages takes percentages from 0 to below 100, such as 0%,50%, not '{text}'")
    return percents


def _introduction(args: argparse.Namespace, conversations: list[Conversation]) -> str:
    turns = sum((len(one.messages) - one.first_turn + 1) // 2 for one in conversations)
    rate = f", {args.request_rate:g} turns/s each" if args.request_rate > 0 else ""
    return (
        f"{len(conversations):,} conversations of {turns:,} turns by {args.num_clients:,} clients{rate} to {args.url}"
    )


def _print(args: argparse.Namespace, done: MultiTurnRun, percents: tuple[float, ...]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from simserve.bench.multi_turn.report import after_warmup, statistics, statistics_rows, turn_rows

    console = Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS, highlight=False, soft_wrap=True)
    if args.print_content:
        for id_, said in done.said:
            console.print(f"conversation {id_}")
            for message in said:
                console.print(f"  {message['role']}: {message['content']}", markup=False)
    if args.verbose:
        for row in turn_rows(done.turns):
            print(*("" if cell is None else cell for cell in row), sep=",")
    for percent in percents:
        rows = statistics_rows(statistics(after_warmup(done.turns, percent)))
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        table.add_column(f"without the first {percent:g}%" if percent else "all turns", no_wrap=True)
        for name in rows[0][1:]:
            table.add_column(str(name), justify="right")
        for row in rows[1:]:
            cells = ("-" if cell is None else f"{float(cell):,.2f}" for cell in row[1:])
            table.add_row(str(row[0]), *cells)
        console.print(table)
    console.print(_totals(done))
    for failure in dict.fromkeys(map(str, done.failures)):
        console.print(f"failed: {failure}", markup=False)
    if not done.with_minimum:
        console.print("the server does not take min_tokens: answers may be shorter than the recorded ones")
    if args.verify_output:
        console.print(f"{done.mismatches:,} answers are not the recorded ones")


def _totals(done: MultiTurnRun) -> str:
    parts = [
        f"{len(done.turns):,} turns of {len(done.said):,} finished conversations in {done.runtime_s:,.2f} s:"
        f" {done.requests_per_s:,.2f} turns/s"
    ]
    if done.warmup_s:
        parts.append(f"warm-up {done.warmup_s:,.2f} s")
    if done.broken:
        parts.append(f"{done.broken:,} conversations failed")
    if done.unfinished:
        parts.append(f"{done.unfinished:,} conversations not finished")
    return "; ".join(parts)


def _write(args: argparse.Namespace, done: MultiTurnRun, percents: tuple[float, ...], model: str) -> None:
    from simserve.bench.multi_turn.conversations import write_conversations
    from simserve.bench.multi_turn.report import summary_object, write_excel

    parameters: dict[str, Any] = {
        name: str(value) for name, value in vars(args).items() if name not in ("api_key", "header")
    } | {"model": model}
    written: list[Path] = []
    if args.output_file is not None:
        write_conversations(args.output_file, done.said)
        written.append(args.output_file)
    try:
        if args.stats_json_output is not None:
            content = summary_object(done, parameters, percents)
            args.stats_json_output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
            written.append(args.stats_json_output)
        if args.excel_output:
            written += write_excel(Path(), done, parameters, percents, datetime.now())
    except OSError as error:
        raise ConfigError(f"cannot write the statistics: {error}; give another place") from None
    if written:
        _say(f"wrote {', '.join(map(str, written))}")


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
