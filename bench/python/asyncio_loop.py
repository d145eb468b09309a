"""The agents benchmark's baseline: the same calls in a plain asyncio loop. Nothing is kept: what dies with the process is lost.

Arguments: base_url shape NAME RUNS | base_url crowd RUNS. Prints one line of JSON.
"""
import asyncio
import json
import resource
import statistics
import sys
import time

import httpx

TOOL = {
    "type": "function",
    "function": {
        "name": "calculator",
        "description": "Evaluates an expression.",
        "parameters": {"type": "object", "properties": {"expression": {"type": "string"}}},
    },
}


def calculator(arguments):
    left, right = json.loads(arguments)["expression"].split("*")
    return json.dumps({"result": int(left) * int(right)})


async def model_call(client, messages):
    """One streamed answer: its text and its calls."""
    body = {"model": "bench", "messages": messages, "tools": [TOOL], "stream": True}
    text, calls = [], {}
    async with client.stream("POST", "/chat/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            choices = json.loads(line[6:]).get("choices") or [{}]
            delta = choices[0].get("delta") or {}
            text.append(delta.get("content") or "")
            for part in delta.get("tool_calls") or []:
                call = calls.setdefault(part["index"], {"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
                call["id"] = part.get("id") or call["id"]
                call["function"]["name"] += part["function"].get("name") or ""
                call["function"]["arguments"] += part["function"].get("arguments") or ""
    return "".join(text), [calls[index] for index in sorted(calls)]


async def run(client, message):
    messages = [{"role": "system", "content": "You are helpful."}, {"role": "user", "content": message}]
    while True:
        text, calls = await model_call(client, messages)
        if not calls:
            return text
        messages.append({"role": "assistant", "content": text, "tool_calls": calls})
        for call in calls:
            result = calculator(call["function"]["arguments"])
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})


async def main():
    base_url, what, *rest = sys.argv[1:]
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=base_url, limits=limits, timeout=60, trust_env=False) as client:
        if what == "shape":
            seconds = []
            for _ in range(int(rest[1])):
                start = time.perf_counter()
                await run(client, rest[0])
                seconds.append(time.perf_counter() - start)
            return {"median": statistics.median(seconds)}
        start, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(run(client, "slow") for _ in range(int(rest[0]))))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu, "peak_bytes": peak}


print(json.dumps(asyncio.run(main())))
