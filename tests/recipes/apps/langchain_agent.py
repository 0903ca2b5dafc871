"""An agent on LangChain: a model that asks for two tools, which call the API. The model is a fake one."""

import os
from typing import Any

import httpx
import requests
from fastapi import FastAPI
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.tools import BaseTool, tool

API_URL = os.environ["API_URL"]
app = FastAPI(title="recipes")


@tool
async def look_up(item: str) -> int:
    """Look an item up."""
    async with httpx.AsyncClient(timeout=30) as client:
        return (await client.get(f"{API_URL}/items/{item}")).status_code


@tool
def look_up_blocking(item: str) -> int:
    """Look an item up the blocking way, for which LangChain takes a thread."""
    return requests.get(f"{API_URL}/items/{item}", timeout=30).status_code


TOOLS: dict[str, BaseTool] = {"look_up": look_up, "look_up_blocking": look_up_blocking}


async def use_tools(message: AIMessage) -> list[int]:
    """Do what the model asked for."""
    return [await TOOLS[call["name"]].ainvoke(call["args"]) for call in message.tool_calls]


def chain(item: str) -> Runnable[Any, list[int]]:
    """Return a model that asks for each tool once, and what it asks for."""
    calls = [
        {"name": name, "args": {"item": item}, "id": name, "type": "tool_call"} for name in TOOLS
    ]
    model = GenericFakeChatModel(messages=iter([AIMessage(content="", tool_calls=calls)]))
    return model | RunnableLambda(use_tools)


@app.get("/healthz")
async def healthz() -> str:
    """Tell that the application runs."""
    return "ok"


@app.get("/ask/{item}")
async def ask(item: str) -> list[int]:
    """Answer a question about an item."""
    statuses: list[int] = await chain(item).ainvoke(f"what is {item}?")
    return statuses
