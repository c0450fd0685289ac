"""Options of an engine's features that not every engine has; :mod:`simserve.cli.options` reads them with the others."""

from __future__ import annotations

import argparse


def add_feature_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of KV tiers, speculative decoding and adapters."""
    from simserve.cli.options import number, whole_number

    group = parser.add_argument_group(
        "KV tiers", "Where prefixes are kept beside the device; docs/replica_features.md."
    )
    for flag, unit, meaning in (
        ("--kv-offloading-size", "GIB", "of the host's memory for KV, for all devices of a replica together (none)"),
        ("--kv-offloading-bandwidth", "GB/S", "of each device's link to the host, each way (80%% of the profile's)"),
        ("--kv-offloading-latency-us", "US", "until a copy over it is under way (20)"),
        ("--kv-disk-size", "GIB", "of the host's disk for what its memory forgets (none)"),
        ("--kv-disk-bandwidth", "GB/S", "of the disk, which reads and writes share (6.5)"),
        ("--kv-disk-latency-us", "US", "until it begins to read or write (100)"),
    ):
        group.add_argument(flag, type=number, metavar=unit, help=meaning)
    group = parser.add_argument_group("speculative decoding", "What is accepted is stated; docs/replica_features.md.")
    group.add_argument(
        "--speculative-config",
        metavar="JSON",
        help='as {"method": "draft_model", "model": "Llama-3.2-1B-Instruct", "num_speculative_tokens": 3, '
        '"acceptance": [0.8, 0.6, 0.4]}; also ngram and eagle (none)',
    )
    group = parser.add_argument_group("LoRA adapters", "Their weights and what they cost; docs/replica_features.md.")
    group.add_argument("--enable-lora", action="store_true", help="requests may ask for an adapter (no)")
    for flag, kind, unit, meaning in (
        ("--max-loras", whole_number, "N", "adapters in one step, each with a slot in the device's memory (1)"),
        ("--max-lora-rank", whole_number, "R", "rank that slots are made for, and that adapters have here (16)"),
        ("--max-cpu-loras", whole_number, "N", "adapters that the host keeps (--max-loras)"),
        ("--lora-load-ms", number, "MS", "to read an adapter that the host does not keep, beside its bytes (100)"),
        ("--lora-disk-bandwidth", number, "GB/S", "of the disk that it is read from (6.5)"),
        ("--lora-link-bandwidth", number, "GB/S", "of each device's link to the host (80%% of the profile's)"),
    ):
        group.add_argument(flag, type=kind, metavar=unit, help=meaning)
