"""Servers as processes of their own, killed without warning and started again in the same place."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Self

__all__ = ["Fleet"]

PROGRAM = Path(__file__).with_name("server.py")


class Fleet:
    """`faults`: the share of answers that go wrong, one figure for each server. The first is never killed."""

    def __init__(self, faults: list[float], seconds_between_kills: float) -> None:
        self.killed = Counter[int]()
        self._faults, self._between = faults, seconds_between_kills
        self._processes = [self._start(0, number) for number in range(len(faults))]
        self.ports = [int(process.stdout.readline()) for process in self._processes]
        self._over = threading.Event()
        self._gremlin = threading.Thread(target=self._kill_some)

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self.ports]

    def __enter__(self) -> Self:
        self._gremlin.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._gremlin.join()
        for process in self._processes:
            process.kill()
            self._bury(process)

    def _start(self, port: int, number: int) -> subprocess.Popen[str]:
        command = [sys.executable, str(PROGRAM), str(port), str(number), str(self._faults[number])]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _kill_some(self) -> None:
        dice = random.Random(9)
        while len(self.ports) > 1 and not self._over.wait(dice.uniform(0.5, 1.5) * self._between):
            victim = dice.randrange(1, len(self.ports))
            self._processes[victim].kill()
            self._bury(self._processes[victim])
            self.killed[victim] += 1
            self._over.wait(dice.uniform(0.0, 2.0))  # nobody listens there meanwhile
            self._processes[victim] = self._start(self.ports[victim], victim)

    def _bury(self, process: subprocess.Popen[str]) -> None:
        process.wait(10)
        for pipe in (process.stdin, process.stdout):
            pipe.close()
