"""LlamaIndex's OpenAI classes."""

from __future__ import annotations

from typing import Any

import pytest

from clients.conftest import MODEL

openai_like = pytest.importorskip("llama_index.llms.openai_like", reason="see scripts/test_clients.sh")


def model(url: str, **fields: Any) -> Any:
    return openai_like.OpenAILike(
        api_base=url, api_key="none", model=MODEL, max_retries=0, context_window=2048, max_tokens=12, **fields
    )


def test_chats_and_completions_whole_and_streamed(url: str) -> None:
    from llama_index.core.llms import ChatMessage

    chat, completion = model(url, is_chat_model=True), model(url, is_chat_model=False)
    messages = [ChatMessage(role="user", content="Say something.")]
    assert chat.chat(messages).message.content
    assert "".join(part.delta or "" for part in chat.stream_chat(messages))
    assert completion.complete("Once upon a time").text
    assert "".join(part.delta or "" for part in completion.stream_complete("Once upon a time"))


async def test_without_waiting(url: str) -> None:
    llm = model(url, is_chat_model=True)
    assert (await llm.acomplete("Say something.")).text
    assert [part async for part in await llm.astream_complete("Say something.")]


def test_a_tool_is_called(url: str) -> None:
    from llama_index.core.tools import FunctionTool

    def add(first: int, second: int) -> int:
        """Add two numbers."""
        return first + second

    llm = openai_like.OpenAILike(
        api_base=url, api_key="none", model=MODEL, is_chat_model=True, is_function_calling_model=True
    )
    answer = llm.chat_with_tools([FunctionTool.from_defaults(add)], user_msg="add 4")
    (call,) = llm.get_tool_calls_from_response(answer)
    assert call.tool_name == "add"
    assert set(call.tool_kwargs) == {"first", "second"}
