"""Hooks of schemathesis: half of the requests know ids of things that are there, and begin with a body that is right.

What chance alone makes up gets no further than 404 and 422. Which half follows from the request itself, so that a seed tells it again.
"""

import hashlib
import json
import os
import pathlib
import random
import time

import requests
import schemathesis

ROOT = pathlib.Path(__file__).resolve().parent.parent
API = os.environ["FUZZ_API_URL"] + "/api/v1"
# Of the document's paths.
BASE = os.environ["FUZZ_API_BASE"]
SESSION = requests.Session()
SESSION.headers["Authorization"] = "Bearer " + os.environ["FUZZ_API_TOKEN"]

RUN = {
    "threadId": "t1",
    "runId": "r1",
    "messages": [{"id": "m1", "role": "user", "content": "/say 3 words"}],
    "tools": [{"name": "mine", "description": "d", "parameters": {"type": "object"}}],
    "context": [{"description": "d", "value": "v"}],
    "forwardedProps": {"priority": "high", "multitask": "enqueue", "runAt": "2026-01-01T00:00:00Z"},
}
SCHEDULE = {"name": "mine", "agent_id": "$agent", "cron": "@daily", "input": "go"}
# What the tests ask each endpoint with has few fields; these have more.
BODIES = {
    ("POST", "/agent/runs"): RUN,
    ("POST", "/agent/agui"): RUN,
    ("POST", "/agent-schedules"): SCHEDULE | {"timezone": "Europe/Vienna", "catch_up": "all", "overlap": "skip"},
    ("POST", "/tasks"): {"title": "mine", "goal_id": "$goal", "description": "d", "priority": 1, "max_attempts": 2},
    ("POST", "/agents"): {"name": "mine", "system_prompt": "s", "include_tools": ["calculator"], "model_config": {"temperature": 1}},
}


def table():
    """(method, path) and the body that the tests use."""
    lines = (ROOT / "api/tests/platform/endpoints.tsv").read_text().splitlines()[1:]
    rows = [line.split("\t") for line in lines]
    return {(row[1], row[2]): json.loads(row[6]) for row in rows if row[0] == "due" and row[6] != "-"}


def ask(method, path, body=None):
    answer = SESSION.request(method, API + path, json=body, timeout=60)
    answer.raise_for_status()
    return answer.json()


def ended(run):
    """Waits for it: a branch needs a message that is there."""
    deadline = time.monotonic() + 60
    while not ask("GET", f"/agent/runs/{run}").get("finished"):
        if time.monotonic() > deadline:
            raise SystemExit(f"fuzz-api: the run {run} does not end")
        time.sleep(0.1)


def things():
    """One of each resource, by its name in the table. Each document has its own."""
    name = f"known{os.getpid()}"
    made = {"agent": ask("POST", "/agents", {"name": name})["id"], "session": name, "message": "m1"}
    ask("POST", f"/agents/{made['agent']}/deploy")
    made["goal"] = ask("POST", "/goals", {"title": name})["id"]
    made["execution"] = ask("POST", "/executions", {"agent_id": made["agent"], "input": "hi"})["execution_id"]
    for resource, path in [("model_config", "/model-configs"), ("notification_channel", "/notification-channels"), ("plugin", "/plugins")]:
        made[resource] = ask("POST", path, KNOWN[("POST", path)] | {"name": name})["id"]
    made["tool"] = ask("POST", "/tools", KNOWN[("POST", "/tools")] | {"name": name})["id"]
    made["task"] = ask("POST", "/tasks", {"title": name, "goal_id": made["goal"]})["id"]
    made["schedule"] = ask("POST", "/agent-schedules", SCHEDULE | {"name": name, "agent_id": made["agent"]})["id"]
    props = {"agentId": made["agent"]}
    made["run"] = ask("POST", "/agent/runs", RUN | {"threadId": name, "runId": name, "forwardedProps": props})["taskId"]
    ended(made["run"])
    made["branch"] = ask("POST", "/agent-chat/branches", {"session_id": name, "message_id": "m1"})["id"]
    return made


KNOWN = table() | BODIES
THINGS = things()
BY_FOLDER = {
    "agents": "agent",
    "agent-chat": "agent",
    "branches": "branch",
    "goals": "goal",
    "available": "goal",
    "tasks": "task",
    "tools": "tool",
    "executions": "execution",
    "model-configs": "model_config",
    "notification-channels": "notification_channel",
    "plugins": "plugin",
    "agent-schedules": "schedule",
    "transcribe": "run",
}


def filled(body):
    text = json.dumps(body)
    for name, value in THINGS.items():
        text = text.replace(f'"${name}"', json.dumps(value))
    return json.loads(text)


def known(path, name):
    """The id that belongs at `{name}` of a path; an agent's run is in /runs by two names."""
    if name in ("thread_id", "session_id"):
        return THINGS["session"]
    folder = path.split("{" + name + "}")[0].rstrip("/").rsplit("/", 1)[-1]
    return THINGS["run"] if folder == "runs" else THINGS.get(BY_FOLDER.get(folder))


@schemathesis.hook
def before_call(context, case, kwargs):
    said = repr((case.method, case.path, case.path_parameters, case.query, case.body))
    chance = random.Random(hashlib.sha256(said.encode(errors="replace")).digest())
    method, path = case.method.upper(), case.path
    # What is known stays there to be asked for.
    for name in case.path_parameters or {}:
        value = known(path, name)
        if value and method != "DELETE" and chance.random() < 0.5:
            case.path_parameters[name] = value
    right = KNOWN.get((method, (BASE + path).removeprefix("/api/v1")))
    if right is None or not isinstance(case.body, dict) or chance.random() < 0.3:
        return
    changed = chance.sample(sorted(case.body, key=str), min(len(case.body), chance.randint(0, 2)))
    case.body = filled(right) | {field: case.body[field] for field in changed}
    # Two with one id are one.
    if "runId" in case.body and "runId" not in changed:
        case.body["runId"] = f"r{chance.getrandbits(32)}"
