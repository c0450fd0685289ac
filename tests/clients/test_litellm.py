"""LiteLLM, with the provider for OpenAI-like servers and with vLLM's."""

from __future__ import annotations

from typing import Any

import pytest

from clients.conftest import MODEL

litellm = pytest.importorskip("litellm", reason="see scripts/test_clients.sh")

MESSAGES = [{"role": "user", "content": "Say something."}]


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])
def test_chats_whole_and_streamed(url: str, provider: str) -> None:
    asked: Any = {"model": f"{provider}/{MODEL}", "api_base": url, "api_key": "none", "messages": MESSAGES, "seed": 1}
    whole = litellm.completion(max_tokens=9, **asked)
    assert whole.usage.completion_tokens == 9
    chunks = list(litellm.completion(max_tokens=9, stream=True, **asked))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content


def test_tools_and_reasoning(url: str) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    asked: Any = {"model": f"hosted_vllm/{MODEL}", "api_base": url, "api_key": "none", "messages": MESSAGES}
    assert litellm.completion(tools=[tool], **asked).choices[0].message.tool_calls[0].function.name == "f"
    answer = litellm.completion(extra_body={"reasoning_effort": "low"}, **asked)
    assert answer.choices[0].message.reasoning_content


def test_its_own_errors(url: str) -> None:
    asked: Any = {"api_base": url, "api_key": "none", "num_retries": 0}
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(model=f"openai/{MODEL}", messages=[{"role": "user", "content": "word " * 5000}], **asked)
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(model="openai/nobody", messages=MESSAGES, **asked)


def test_embeddings_and_completions(url: str) -> None:
    asked: Any = {"api_base": url, "api_key": "none"}
    answer = litellm.embedding(model=f"openai/{MODEL}", input=["a"], encoding_format="float", **asked)
    assert len(answer.data[0]["embedding"]) == 768
    completion = litellm.text_completion(model=f"text-completion-openai/{MODEL}", prompt="Once", max_tokens=4, **asked)
    assert completion.choices[0].text
