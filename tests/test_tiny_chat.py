"""The small real model that ships: its files belong together, other programs read them, and its script makes them."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import ModuleType

import pytest

from simserve.cli.main import main
from simserve.models import load_model
from simserve.resources import data_dir
from simserve.server.chat_template import load_chat_template
from simserve.workload import Tokenizer, load_tokenizer

torch = pytest.importorskip("torch", reason="the real engine needs torch: pip install simserve[torch]")

FOLDER = data_dir("models") / "simserve/tiny-chat"
SCRIPTS = Path(__file__).parents[1] / "scripts/tiny_chat"
ANSWERS = {
    "Hello": "Hello! I am a very small language model. How can I help you?",
    "What is 12 + 7?": "12 + 7 = 19.",
    "What is the capital of Japan?": "The capital of Japan is Tokyo.",
    "What comes after Friday?": "Saturday comes after Friday.",
    "Who is Ada Finn?": "I do not know that. I am a very small model; ask me to count, to add, or about SimServe.",
}


@pytest.fixture(scope="module", name="tokenizer")
def models_tokenizer() -> Tokenizer:
    return load_tokenizer(FOLDER)


def prompt_of(question: str) -> str:
    return load_chat_template(FOLDER).render([{"role": "user", "content": question}])


def test_its_files_belong_together(tokenizer: Tokenizer) -> None:
    from safetensors import safe_open

    spec = load_model("simserve/tiny-chat")
    config = json.loads((FOLDER / "tokenizer_config.json").read_text())
    assert tokenizer.vocab_size == spec.vocab_size
    model = json.loads((FOLDER / "config.json").read_text())
    assert tokenizer.encode(config["bos_token"]) == [model["bos_token_id"]]
    assert tokenizer.encode(config["eos_token"]) == [model["eos_token_id"]]
    with safe_open(FOLDER / "model.safetensors", "pt") as file:
        names = list(file.keys())
        tensors = [file.get_tensor(name) for name in names]
    assert sum(tensor.numel() for tensor in tensors) == spec.num_parameters
    assert {tensor.dtype for tensor in tensors} == {torch.bfloat16}


def test_it_is_small() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 3_000_000


def test_each_mark_of_its_template_is_one_token(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(prompt_of("Hello"))
    assert [tokenizer.decode([one]) for one in ids] == [
        "<|begin|>",
        "<|user|>",
        "\n",
        "Hello",
        "<|end|>",
        "\n",
        "<|assistant|>",
        "\n",
    ]


def test_transformers_reads_it_and_answers_alike(tokenizer: Tokenizer) -> None:
    transformers = pytest.importorskip("transformers", reason="the reference is transformers")
    from simserve.engines.base import SamplingParams
    from simserve.engines.torch import generate

    theirs = transformers.AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)
    prompts = [tokenizer.encode(prompt_of(question)) for question in ANSWERS]
    ours = generate(prompts, FOLDER, dtype="float32", sampling=SamplingParams(temperature=0.0))
    for prompt, question, answer in zip(prompts, ANSWERS, ours, strict=True):
        messages = [{"role": "user", "content": question}]
        asked = their_tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        assert asked["input_ids"][0].tolist() == prompt
        (said,) = theirs.generate(**asked, max_new_tokens=128, do_sample=False, temperature=None)
        assert said[len(prompt) :].tolist() == answer.token_ids
        assert (answer.text, answer.finish_reason) == (ANSWERS[question], "stop")


def test_it_can_be_simulated_like_any_other(capsys: pytest.CaptureFixture[str]) -> None:
    workload = ["--synthetic", "--num-prompts", "5", "--input-len", "64"]
    assert main(["simulate", *workload, "--model", "simserve/tiny-chat", "--hardware", "L4"]) == 0
    assert "simserve/tiny-chat on L4" in capsys.readouterr().out


class TestItsScript:
    @pytest.fixture
    def script(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
        pytest.importorskip("safetensors")
        if not SCRIPTS.is_dir():
            pytest.skip("scripts/ is not part of an installation")
        monkeypatch.syspath_prepend(str(SCRIPTS))
        before = set(sys.modules)
        yield importlib.import_module("train")
        for name in set(sys.modules) - before:
            if getattr(sys.modules[name], "__file__", None) and str(SCRIPTS) in str(sys.modules[name].__file__):
                del sys.modules[name]

    def test_the_same_seed_gives_the_same_texts(self, script: ModuleType) -> None:
        first, again = (
            [next(stream) for _ in range(50)] for stream in (script.texts(Random(1)), script.texts(Random(1)))
        )
        assert first == again
        assert all(text.startswith("<|begin|>") and "<|end|>" in text for text in first)

    def test_only_what_the_assistant_says_is_learned(self, script: ModuleType, tokenizer: Tokenizer) -> None:
        messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi!"}]
        inner = script.Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
        ids = torch.tensor([tokenizer.encode(script.rendered(messages, to_answer=False))])
        learned = ids[script.spoken(ids, inner)].tolist()
        assert tokenizer.decode(learned) == "\nHi!<|end|>\n"

    def test_it_learns_and_writes_a_model_that_loads(self, script: ModuleType, tmp_path: Path) -> None:
        inner = script.vocabulary.train(
            (text for text, _ in zip(script.texts(Random(1)), range(300), strict=False)), 400
        )
        shape = script.llama.Shape(inner.get_vocab_size(), hidden_size=32, intermediate_size=64, num_hidden_layers=1)
        model = script.llama.Llama(shape)
        batch = next(script.batches(inner, Random(2)))
        before = script.loss_of(model, batch, inner).item()
        script.fit(model, inner, Random(2), steps=3)
        assert script.loss_of(model, batch, inner).item() < before
        script.vocabulary.save(inner, tmp_path, shape.max_position_embeddings)
        script.llama.save(model, tmp_path, 1, 2, 0)
        assert load_model(str(tmp_path)).num_parameters == sum(weight.numel() for weight in model.parameters())
