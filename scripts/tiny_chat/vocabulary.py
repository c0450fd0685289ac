"""The tokenizer of the tiny model: byte-level BPE over its own conversations, and its chat template."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from model import write_json
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE

PAD, BOS, EOS = "<|pad|>", "<|begin|>", "<|end|>"  # ids 0, 1, 2
ROLES = ("system", "user", "assistant", "tool")

CHAT_TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}
    {%- set role = 'system' if message.role == 'developer' else message.role %}
    {%- if role not in ['system', 'user', 'assistant', 'tool'] %}
        {{- raise_exception('tiny-chat knows no role ' ~ role) }}
    {%- endif %}
    {{- '<|' ~ role ~ '|>\\n' ~ (message.content or '') | trim ~ eos_token ~ '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|assistant|>\\n' }}
{%- endif %}
"""


def train(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A tokenizer of ``vocab_size`` entries; a text that it encodes by itself begins with ``<|begin|>``."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        show_progress=False,
        special_tokens=[PAD, BOS, EOS, *(f"<|{role}|>" for role in ROLES)],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path, max_model_len: int) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_model_len,
        "chat_template": CHAT_TEMPLATE,
    }
    write_json(folder / "tokenizer_config.json", config)
