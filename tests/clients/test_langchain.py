"""LangChain's OpenAI classes."""

from __future__ import annotations

from typing import Any

import pytest

from clients.conftest import MODEL

langchain_openai = pytest.importorskip("langchain_openai", reason="see scripts/test_clients.sh")


@pytest.fixture
def chat(url: str) -> Any:
    return langchain_openai.ChatOpenAI(base_url=url, api_key="none", model=MODEL, max_retries=0)


def test_a_chat_whole_and_streamed(chat: Any) -> None:
    chat = chat.bind(seed=1, max_tokens=12)
    whole = chat.invoke("Say something.")
    assert whole.usage_metadata["output_tokens"] == 12
    chunks = list(chat.stream("Say something."))
    assert "".join(chunk.content for chunk in chunks) == whole.content
    assert len(chunks) > 3


async def test_a_chat_without_waiting(chat: Any) -> None:
    assert (await chat.ainvoke("Say something.")).content
    assert [chunk async for chunk in chat.astream("Say something.")]


def test_a_tool_is_called_and_its_result_talked_about(chat: Any) -> None:
    from langchain_core.messages import HumanMessage, ToolMessage
    from langchain_core.tools import tool

    @tool
    def magic_function(input: int) -> int:
        """Apply magic to a number."""
        return input + 2

    bound = chat.bind_tools([magic_function])
    question = HumanMessage("What is the value of magic_function(3)?")
    asked = bound.invoke([question])
    (call,) = asked.tool_calls
    assert (call["name"], call["args"]) == ("magic_function", {"input": 3})
    result = ToolMessage(str(magic_function.invoke(call["args"])), tool_call_id=call["id"])
    assert bound.invoke([question, asked, result]).content
    streamed: Any = None
    for chunk in bound.stream([question]):
        streamed = chunk if streamed is None else streamed + chunk
    assert streamed.tool_calls[0]["args"] == {"input": 3}
    assert chat.bind_tools([magic_function], tool_choice="any").invoke("Go").tool_calls


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output(chat: Any, method: str) -> None:
    from pydantic import BaseModel

    class Joke(BaseModel):
        """A joke."""

        setup: str
        rating: int

    assert isinstance(chat.with_structured_output(Joke, method=method).invoke("A joke, rated 4"), Joke)


def test_a_picture(chat: Any) -> None:
    picture = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
    parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": picture}}]
    plain, with_picture = chat.invoke("What is it?"), chat.invoke([{"role": "user", "content": parts}])
    assert with_picture.usage_metadata["input_tokens"] > plain.usage_metadata["input_tokens"] + 80


def test_the_responses_api(url: str) -> None:
    chat = langchain_openai.ChatOpenAI(base_url=url, api_key="none", model=MODEL, use_responses_api=True)
    assert chat.invoke("Say something.").text
    assert "".join(chunk.text for chunk in chat.stream("Say something."))


def test_completions_and_embeddings(url: str) -> None:
    completion = langchain_openai.OpenAI(base_url=url, api_key="none", model=MODEL, max_tokens=5)
    assert completion.invoke("Once upon a time")
    assert "".join(completion.stream("Once upon a time"))
    embeddings = langchain_openai.OpenAIEmbeddings(
        base_url=url, api_key="none", model=MODEL, check_embedding_ctx_length=False
    )
    assert len(embeddings.embed_documents(["a", "b"])) == 2
