"""A run as a Celery task: calls of the model until it asks for no more tools."""
import os

from celery import Celery
from openai import OpenAI

app = Celery("bench", broker=os.environ["REDIS_URL"] + "/0", backend=os.environ["REDIS_URL"] + "/1")
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
)
client = OpenAI(base_url=os.environ["OPENAI_BASE_URL"], api_key="sk-bench")


def ask(messages):
    """One streamed answer: its text, and the calls of tools that it asks for."""
    text, calls = "", {}
    for chunk in client.chat.completions.create(model="bench", messages=messages, stream=True):
        for choice in chunk.choices:
            text += choice.delta.content or ""
            for part in choice.delta.tool_calls or []:
                call = calls.setdefault(part.index, {"id": part.id, "name": part.function.name, "arguments": ""})
                call["arguments"] += part.function.arguments or ""
    return text, list(calls.values())


@app.task(name="run")
def run(message):
    messages = [{"role": "user", "content": message}]
    while True:
        text, calls = ask(messages)
        if not calls:
            return text
        functions = [{"name": call["name"], "arguments": call["arguments"]} for call in calls]
        asked = [{"id": c["id"], "type": "function", "function": f} for c, f in zip(calls, functions)]
        messages.append({"role": "assistant", "content": text, "tool_calls": asked})
        messages += [{"role": "tool", "tool_call_id": call["id"], "content": "42"} for call in calls]
