"""Frameworks for agents: OpenAI's own, over chats and over the Responses API, and Pydantic AI."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from clients.conftest import MODEL


class Event(BaseModel):
    """What is asked for."""

    name: str
    day: int


def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


@pytest.mark.parametrize("kind", ["OpenAIChatCompletionsModel", "OpenAIResponsesModel"])
async def test_openai_agents_call_tools_hand_over_and_answer_in_a_form(url: str, kind: str) -> None:
    agents = pytest.importorskip("agents", reason="see scripts/test_clients.sh")
    import openai

    agents.set_tracing_disabled(True)
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        model = getattr(agents, kind)(model=MODEL, openai_client=client)
        caller = agents.Agent(name="caller", model=model, tools=[agents.function_tool(weather)])
        asked = await agents.Runner.run(caller, "What is the weather in Rome?")
        assert [item.type for item in asked.new_items] == [
            "tool_call_item",
            "tool_call_output_item",
            "message_output_item",
        ]
        more = [*asked.to_input_list(), {"role": "user", "content": "And tomorrow?"}]
        assert (await agents.Runner.run(caller, more)).final_output
        streamed = agents.Runner.run_streamed(caller, "What is the weather in Rome?")
        kinds = {event.type async for event in streamed.stream_events()}
        assert kinds >= {"raw_response_event", "run_item_stream_event"}
        assert streamed.final_output
        former = agents.Agent(name="former", model=model, output_type=Event)
        assert (await agents.Runner.run(former, "Alice, day 3")).final_output.day == 3
        first = agents.Agent(name="first", model=model, handoffs=[former])
        assert (await agents.Runner.run(first, "Go on")).last_agent is former


@pytest.mark.parametrize("kind", ["OpenAIChatModel", "OpenAIResponsesModel"])
async def test_pydantic_ai_calls_tools_and_gets_its_forms(url: str, kind: str) -> None:
    pydantic_ai = pytest.importorskip("pydantic_ai", reason="see scripts/test_clients.sh")
    from pydantic_ai.models import openai as models
    from pydantic_ai.providers.openai import OpenAIProvider

    model: Any = getattr(models, kind)(MODEL, provider=OpenAIProvider(base_url=url, api_key="none"))
    agent = pydantic_ai.Agent(model, tools=[weather])
    asked = await agent.run("What is the weather in Rome?")
    assert asked.output
    assert (await agent.run("And tomorrow?", message_history=asked.all_messages())).output
    async with agent.run_stream("What is the weather in Rome?") as streamed:
        assert "".join([text async for text in streamed.stream_text(delta=True)])
    for form in (Event, pydantic_ai.NativeOutput(Event), pydantic_ai.PromptedOutput(Event)):
        # The last of them says in words what it wants, and in a field that it be JSON.
        assert (await pydantic_ai.Agent(model, output_type=form, retries=0).run("Alice, day 3")).output.day == 3
