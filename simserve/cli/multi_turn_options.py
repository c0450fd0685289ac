"""Options of ``simserve bench multi-turn``, by the names of the script that people know for it."""

from __future__ import annotations

import argparse
from pathlib import Path

from simserve.cli.options import number, whole_number

DEFAULT_URL = "http://localhost:8000"


def add_multi_turn_arguments(parser: argparse.ArgumentParser) -> None:
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
