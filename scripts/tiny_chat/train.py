"""Train ``simserve/tiny-chat``, the small real model in models/: ten minutes of one processor core.

    python scripts/tiny_chat/train.py [--steps N] [--out FOLDER]

It needs ``pip install simserve[torch]``, with torch 2.9 or newer for Muon. Every text it learns from is in this folder
or in SimServe's own sentences; a fresh stream of conversations is drawn from ``SEED`` at every run, so that the same
machine and the same torch give the same weights. Prints the loss (nats per token) on the way, and at the end the loss
on conversations from another seed and how many questions the saved bfloat16 weights answer word for word.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import conversations
import model as llama
import torch
import vocabulary
from facts import QUESTIONS
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[2]
SENTENCES = ROOT / "simserve/workload/data/sentences.txt"
SEED = 20
IGNORED = -100
"""Marks what is read and not learned, as torch has it."""
VOCAB_SIZE = 1536
STEPS = 2000
BATCH_TOKENS = 2048
WINDOWS = {256: 0.75, 512: 0.2, 2048: 0.05}
"""Lengths of training sequences and how often: mostly short for speed, some as long as the longest context."""
LEARNING_RATE, MATRIX_LEARNING_RATE = 3e-3, 2e-2
WARMUP_STEPS = 50
PROSE_SHARE = 0.12
HELD_OUT_QUESTIONS = 20
"""Of each kind."""

environment = ImmutableSandboxedEnvironment()
template = environment.from_string(vocabulary.CHAT_TEMPLATE)


def main() -> None:
    """Train, save, and show what came out."""
    parser = argparse.ArgumentParser(description="Train simserve/tiny-chat.")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"steps of {BATCH_TOKENS} tokens ({STEPS})")
    parser.add_argument("--out", type=Path, default=ROOT / "models/simserve/tiny-chat", help="folder to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    random = Random(SEED)
    args.out.mkdir(parents=True, exist_ok=True)

    tokenizer = vocabulary.train((text for text, _ in zip(texts(random), range(20_000), strict=False)), VOCAB_SIZE)
    shape = llama.Shape(vocab_size=tokenizer.get_vocab_size())
    model = llama.Llama(shape)
    print(f"{sum(weight.numel() for weight in model.parameters()):,} parameters")
    fit(model, tokenizer, random, args.steps)

    vocabulary.save(tokenizer, args.out, shape.max_position_embeddings)
    bos_id, eos_id, pad_id = map(tokenizer.token_to_id, (vocabulary.BOS, vocabulary.EOS, vocabulary.PAD))
    llama.save(model, args.out, bos_id, eos_id, pad_id)
    report(model, tokenizer)
    print(f"saved to {args.out}")


def rendered(messages: list[dict[str, str]], *, to_answer: bool) -> str:
    """The text of a conversation by the model's own chat template."""
    names = {"bos_token": vocabulary.BOS, "eos_token": vocabulary.EOS, "add_generation_prompt": to_answer}
    return template.render(messages=messages, **names)


def texts(random: Random) -> Iterator[str]:
    """Conversations and some running text, without end."""
    sentences = SENTENCES.read_text(encoding="utf-8").splitlines()
    while True:
        if random.random() < PROSE_SHARE:
            yield f"{vocabulary.BOS}{conversations.prose(random, sentences)}{vocabulary.EOS}"
        else:
            yield rendered(conversations.conversation(random), to_answer=False)


def batches(tokenizer: Tokenizer, random: Random) -> Iterator[torch.Tensor]:
    """Windows [sequences, tokens + 1], filled with one text after the other."""
    stream = texts(random)
    while True:
        tokens = random.choices(list(WINDOWS), list(WINDOWS.values()))[0]
        rows = BATCH_TOKENS // tokens
        ids: list[list[int]] = []
        for _ in range(rows):
            row: list[int] = []
            while len(row) < tokens + 1:
                row += tokenizer.encode(next(stream), add_special_tokens=False).ids
            ids.append(row[: tokens + 1])
        yield torch.tensor(ids)


def spoken(ids: torch.Tensor, tokenizer: Tokenizer) -> torch.Tensor:
    """Which of ``ids`` [sequences, tokens] are worth learning: what the assistant says, its end, and running text."""
    marks = {name: tokenizer.token_to_id(f"<|{name}|>") for name in vocabulary.ROLES}
    others = (ids == marks["system"]) | (ids == marks["user"]) | (ids == marks["tool"])
    turns_on = (ids == marks["assistant"]) | (ids == tokenizer.token_to_id(vocabulary.BOS))
    # The last mark up to here decides: positions of marks grow to the right, so the running maximum finds it.
    at = torch.arange(ids.shape[1]).expand_as(ids)
    last_on = torch.where(turns_on, at, -1).cummax(dim=1).values
    last_off = torch.where(others, at, -1).cummax(dim=1).values
    return (last_on > last_off) & ~turns_on


def fit(model: llama.Llama, tokenizer: Tokenizer, random: Random, steps: int) -> None:
    """Muon for the matrices of the layers and AdamW for the rest; learning rates up in a line, down in a cosine."""
    matrices = [weight for weight in model.layers.parameters() if weight.dim() == 2]
    rest = [weight for weight in model.parameters() if not any(weight is matrix for matrix in matrices)]
    optimizers = (
        torch.optim.Muon(matrices, lr=MATRIX_LEARNING_RATE, weight_decay=0.05),
        torch.optim.AdamW(rest, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    )
    schedules = [torch.optim.lr_scheduler.LambdaLR(one, lambda step: schedule(step, steps)) for one in optimizers]
    start_s, shown, total = time.process_time(), 0, 0.0
    for step, batch in zip(range(1, steps + 1), batches(tokenizer, random), strict=False):
        loss = loss_of(model, batch, tokenizer)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, rate in zip(optimizers, schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad()
            rate.step()
        total, shown = total + loss.item(), shown + 1
        if step % 50 == 0 or step == steps:
            print(f"step {step:5}  loss {total / shown:.4f}  {time.process_time() - start_s:6.0f} s of CPU", flush=True)
            total, shown = 0.0, 0


def schedule(step: int, steps: int) -> float:
    """Fraction of the peak learning rate at ``step`` of ``steps``."""
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    return 0.02 + 0.98 * (1 + math.cos(math.pi * (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS))) / 2


def loss_of(model: llama.Llama, batch: torch.Tensor, tokenizer: Tokenizer) -> torch.Tensor:
    """Mean cross entropy, in nats, of the next token where it is worth learning."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(batch[:, :-1]).float()
    targets = torch.where(spoken(batch, tokenizer), batch, IGNORED)[:, 1:]
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), ignore_index=IGNORED)


@torch.no_grad()
def report(model: llama.Llama, tokenizer: Tokenizer) -> None:
    """Round the weights as they were saved, then measure: loss on unseen conversations, answers word for word."""
    for weight in model.parameters():
        weight.copy_(weight.bfloat16().float())
    unseen = Random(SEED + 1)
    losses = [loss_of(model, batch, tokenizer) for _, batch in zip(range(20), batches(tokenizer, unseen), strict=False)]
    print(f"loss on unseen conversations {torch.stack(losses).mean():.4f}")
    asked: dict[str, list[bool]] = {}
    for source, _ in conversations.SOURCES:
        if source is conversations.told_story:
            continue
        for _ in range(HELD_OUT_QUESTIONS):
            question, wanted = source(unseen)
            asked.setdefault(source.__name__, []).append(answer(model, tokenizer, question) == wanted)
    print("answered word for word:", ", ".join(f"{name} {sum(hits)}/{len(hits)}" for name, hits in asked.items()))
    for question in (*(ways[0] for ways in list(QUESTIONS.values())[:3]), "What is SimServe?", "Tell me a story."):
        print(f"> {question}\n{answer(model, tokenizer, question)}")


def answer(model: llama.Llama, tokenizer: Tokenizer, question: str, most: int = 160) -> str:
    """The likeliest answer, token by token."""
    prompt = rendered([{"role": "user", "content": question}], to_answer=True)
    ids = tokenizer.encode(prompt, add_special_tokens=False).ids
    eos_id, start = tokenizer.token_to_id(vocabulary.EOS), len(ids)
    while len(ids) < start + most:
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
        if ids[-1] == eos_id:
            break
    return tokenizer.decode(ids[start:])


if __name__ == "__main__":
    main()
