"""n8n's own runner of Python, as its package has it, behind a task broker of ours: what sandbox.py stands for.

The runner is a program that connects to n8n's broker over a websocket, offers itself, and is given a node's code and items.
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

from .sandbox import ALLOW, Failed, Ran, checked

__all__ = ["Runners"]

ENOUGH = 30.0  # seconds for anything here; a node takes two
# As n8n's image starts it (docker/images/runners/n8n-task-runners.json).
COMMAND = ["-I", "-B", "-X", "disable_remote_debug", "-m", "src.main"]


class Runners:
    """One runner for each allowlist that is asked for: a runner reads its own at its start. `python` has the package."""

    def __init__(self, python: str = sys.executable) -> None:
        self._python = python
        self._started: dict[tuple[str, ...], _Runner] = {}

    def run(self, code: str, items: Iterable[dict[str, Any]] = (), *, allow: Iterable[str] = ALLOW) -> Ran:
        """Run the node's code on `items` ("run once for all items") with only `allow` to import. Raises Failed."""
        allowed = tuple(sorted(allow))
        if allowed not in self._started:
            self._started[allowed] = _Runner(self._python, allowed)
        return self._started[allowed].run(code, list(items))

    def close(self) -> None:
        for runner in self._started.values():
            runner.close()


class _Runner:
    def __init__(self, python: str, allow: tuple[str, ...]) -> None:
        self._offers: queue.Queue[str] = queue.Queue()
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self._printed: list[list[str]] = []
        self._connected: queue.Queue[ServerConnection] = queue.Queue()
        self._server: Server = serve(self._listen, "127.0.0.1", 0)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        standard = [name for name in allow if name in sys.stdlib_module_names]
        environment = {
            "PATH": "/usr/bin:/bin",
            "N8N_RUNNERS_GRANT_TOKEN": "given by the broker, which is ours",
            "N8N_RUNNERS_TASK_BROKER_URI": f"http://127.0.0.1:{self._server.socket.getsockname()[1]}",
            "N8N_RUNNERS_STDLIB_ALLOW": ",".join(standard),
            "N8N_RUNNERS_EXTERNAL_ALLOW": ",".join(name for name in allow if name not in standard),
        }
        self._process = subprocess.Popen(
            [python, *COMMAND], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._connection = self._first()

    def _first(self) -> ServerConnection:
        ends_at = time.monotonic() + ENOUGH
        while time.monotonic() < ends_at and self._process.poll() is None:
            with contextlib.suppress(queue.Empty):
                return self._connected.get(timeout=0.1)
        raise AssertionError(f"n8n's runner did not come: exit status {self._process.poll()}")

    def _listen(self, connection: ServerConnection) -> None:
        """The broker's side of one connection, from its first word on."""
        say(connection, "inforequest")
        with contextlib.suppress(ConnectionClosed):
            for raw in connection:
                self._heard(connection, json.loads(raw))

    def _heard(self, connection: ServerConnection, message: dict[str, Any]) -> None:
        match message["type"]:
            case "runner:info":
                assert message["types"] == ["python"]
                say(connection, "runnerregistered")
                self._connected.put(connection)
            case "runner:taskoffer":
                self._offers.put(message["offerId"])
            case "runner:rpc":  # print() of the node's code, on its way to the browser
                self._printed.append(message["params"])
            case _:
                self._answers.put(message)

    def run(self, code: str, items: list[dict[str, Any]]) -> Ran:
        self._printed = []
        # An offer holds for five seconds, and another comes in its place.
        while (answer := self._offered())["type"] == "runner:taskrejected":
            pass
        assert answer["type"] == "runner:taskaccepted", answer
        settings = {"code": code, "nodeMode": "runOnceForAllItems", "continueOnFail": False, "items": items}
        say(self._connection, "tasksettings", taskId="task", settings=settings)
        answer = self._answers.get(timeout=2 * ENOUGH)
        if answer["type"] == "runner:taskerror":
            error = answer["error"]
            raise Failed(": ".join(part for part in (error["message"], error.get("description")) if part))
        return Ran(list(checked(answer["data"]["result"])), self._printed)

    def _offered(self) -> dict[str, Any]:
        say(self._connection, "taskofferaccept", taskId="task", offerId=self._offers.get(timeout=ENOUGH))
        return self._answers.get(timeout=ENOUGH)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(ENOUGH)
        self._server.shutdown()


def say(connection: ServerConnection, verb: str, **what: Any) -> None:
    connection.send(json.dumps({"type": f"broker:{verb}"} | what))
