"""Make the small tokenizer that ships with SimServe: byte-level BPE, 2048 entries.

It is trained on the project's own sentences (simserve/workload/data/sentences.txt) and stands in wherever a model
comes without its tokenizer.json. The output is the same at every run:

    python scripts/make_tiny_tokenizer.py
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

ROOT = Path(__file__).resolve().parent.parent
SENTENCES = ROOT / "simserve/workload/data/sentences.txt"
MODEL_FOLDER = ROOT / "models/simserve/tiny-llama"
VOCAB_SIZE = 2048
PAD, BOS, EOS = "<|pad|>", "<|bos|>", "<|eos|>"  # ids 0, 1, 2, as in config.json
ROLES = ("system", "developer", "user", "assistant", "tool")

# The layout of simserve.workload.chat.render_chat, for programs that read templates.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def main() -> None:
    """Train, and write tokenizer.json and tokenizer_config.json into the model folder."""
    MODEL_FOLDER.mkdir(parents=True, exist_ok=True)
    sentences = SENTENCES.read_text(encoding="utf-8").splitlines()
    tokenizer = train(sentences)
    tokenizer.save(str(MODEL_FOLDER / "tokenizer.json"), pretty=False)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    text = json.dumps(config, indent=2) + "\n"
    (MODEL_FOLDER / "tokenizer_config.json").write_text(text, encoding="utf-8")


def train(sentences: list[str]) -> Tokenizer:
    """A byte-level BPE over ``sentences``, each seen alone and as part of one long paragraph."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        show_progress=False,
        special_tokens=[PAD, BOS, EOS, *(f"<|{role}|>" for role in ROLES)],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    # The paragraph teaches " The" (after a full stop), the single lines "The" (at the start of an answer).
    tokenizer.train_from_iterator([" ".join(sentences), *sentences], trainer)
    return tokenizer


if __name__ == "__main__":
    main()
