"""Starts a Runmill, asks it with schemathesis what every OpenAPI document says, and stops it. Exits with 1 on a finding.

usage: fuzz_api.py BINARY [ARGUMENTS OF SCHEMATHESIS]
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

import requests

ROOT = pathlib.Path(__file__).resolve().parent.parent
# The agent's document is a sixth of the platform's.
DOCUMENTS = {"agent": 0.2, "platform": 0.8}
START = 60
PASSWORD = "correct horse battery"

# Whatever waits on purpose waits a moment: a fuzzer calls it hundreds of times.
SETTINGS = {
    "RUNMILL_MODEL": "offline:scripted-demo",
    "RUNMILL_AUTH": "required",
    "RUNMILL_JWT_SECRET": "fuzz-api-secret-of-more-than-32-bytes",
    "RUNMILL_LISTEN__PLATFORM": "127.0.0.1:0",
    "RUNMILL_LISTEN__OPS": "127.0.0.1:0",
    "RUNMILL_HTTP__REQUESTS_PER_MINUTE": "0",
    "RUNMILL_AUTH__LOGIN_ATTEMPTS_PER_MINUTE": "100000",
    "RUNMILL_TRANSCRIBE__PER_MINUTE": "100000",
    "RUNMILL_TRANSCRIBE__WAIT": "2s",
    "RUNMILL_TOOLS__WAIT": "2s",
    "RUNMILL_TOOLS__TIMEOUT": "2s",
    "RUNMILL_MODELS__TEST_WAIT": "2s",
    "RUNMILL_CHAT__WAIT": "2s",
    "RUNMILL_CHAT__IDLE": "1s",
    "RUNMILL_PLUGINS__SYNC_WAIT": "1s",
    "RUNMILL_PLUGINS__TIMEOUT": "2s",
    "RUNMILL_NOTIFICATIONS__TIMEOUT": "2s",
    "RUNMILL_TELEMETRY__LOG": "warn",
}


class Server:
    """The process, its addresses, and what it wrote."""

    def __init__(self, binary, data):
        # Of the caller's environment nothing that names a server or a key.
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        environment = kept | SETTINGS | {"RUNMILL_DATA_DIR": str(data / "data")}
        self.output = data / "output"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen([binary], cwd=data, env=environment, stdout=output, stderr=subprocess.STDOUT)
        self.api = self.wait_for(r"API +(http://\S+)")
        ready = self.wait_for(r"Operators +(http://[^\s,]+)")
        self.until(lambda: requests.get(ready, timeout=5).ok, "is not ready")

    def wait_for(self, pattern):
        def found():
            match = re.search(pattern, self.text())
            return match and match.group(1)

        return self.until(found, f"did not print {pattern}")

    def until(self, condition, complaint):
        deadline = time.monotonic() + START
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if value := condition():
                    return value
            except requests.ConnectionError:
                pass
            time.sleep(0.05)
        raise SystemExit(f"fuzz-api: the server {complaint}:\n{self.text()}")

    def text(self):
        return self.output.read_text(errors="replace")

    def stop(self):
        """Its exit code; a server that does not end is a finding too."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return "none: it did not stop within 60 s"


def api_key(api):
    """Of an account of its own: the fuzzer may sign nobody out with what it finds."""
    auth = f"{api}/api/v1/auth"
    account = {"email": "fuzz@example.com", "nickname": "fuzz", "password": PASSWORD}
    requests.post(f"{auth}/register", json=account, timeout=30).raise_for_status()
    login = requests.post(f"{auth}/login", data={"username": "fuzz", "password": PASSWORD}, timeout=30)
    login.raise_for_status()
    return login.json()["access_token"]


def base(document):
    """Where the document's paths begin."""
    servers = json.loads((ROOT / "openapi" / f"{document}.json").read_text()).get("servers") or [{"url": ""}]
    return servers[0]["url"]


def fuzz(document, server, token, seed, seconds, arguments):
    command = [
        str(pathlib.Path(sys.executable).parent / "schemathesis"),
        f"--config-file={ROOT / 'scripts' / 'fuzz-api.toml'}",
        "run",
        str(ROOT / "openapi" / f"{document}.json"),
        f"--url={server.api}{base(document)}",
        f"--seed={seed}",
        f"--max-examples={os.environ.get('EXAMPLES', '20')}",
        f"--max-time={max(1, int(seconds))}",
        f"--header=Authorization: Bearer {token}",
        "--generation-database=none",
        "--no-color",
        # They say what the fuzzer did not reach, and not what is wrong.
        "--warnings=off",
        *arguments,
    ]
    environment = os.environ | {
        "FUZZ_API_URL": server.api,
        "FUZZ_API_BASE": base(document),
        "FUZZ_API_TOKEN": token,
        "PYTHONPATH": str(ROOT / "scripts"),
        "SCHEMATHESIS_HOOKS": "fuzz_api_hooks",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    print(f"\nfuzz-api: {document}, seed {seed}, at most {int(seconds)} s", flush=True)
    return subprocess.run(command, cwd=server.output.parent, env=environment).returncode


def main():
    binary, arguments = sys.argv[1], sys.argv[2:]
    seed, minutes = os.environ.get("SEED", "1"), float(os.environ.get("MINUTES", "10"))
    documents = os.environ.get("DOCUMENTS", ",".join(DOCUMENTS)).split(",")
    failures = []
    with tempfile.TemporaryDirectory(prefix="runmill-fuzz-api.") as folder:
        server = Server(binary, pathlib.Path(folder))
        try:
            token = api_key(server.api)
            whole = sum(DOCUMENTS[d] for d in documents)
            for document in documents:
                seconds = minutes * 60 * DOCUMENTS[document] / whole
                if fuzz(document, server, token, seed, seconds, arguments) != 0:
                    failures.append(f"{document}: see above")
            if server.process.poll() is not None:
                failures.append("the server ended by itself")
        finally:
            code = server.stop()
        if code != 0:
            failures.append(f"the server's exit code is {code}")
        faults = [line for line in server.text().splitlines() if "panicked" in line or "internal error" in line]
        failures += [f"the server logged: {line}" for line in faults[:20]]
        if log := os.environ.get("LOG"):
            pathlib.Path(log).write_text(server.text())
    print("\n".join(f"fuzz-api: {failure}" for failure in failures) or "fuzz-api: nothing found")
    return 1 if failures else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
