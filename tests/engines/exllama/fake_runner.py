"""FakeRunner: an engine behind the stepper's seam that says a text, one character per step, and fails when told to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra_infer.engines.driver import EngineInfo
from hydra_infer.engines.exllama.seam import Ask, Image


@dataclass(eq=False)
class RawJob:
    ask: Ask
    left: list[str]
    said: int = 0


@dataclass
class FakeRunner:
    """Tokens are code points. `faults` are raised by the next calls of `iterate`, one each."""

    text: str = "hello"
    context: int = 64
    parallel: bool = False
    info: EngineInfo = field(default_factory=lambda: EngineInfo("exllamav3", "fake", 64, 4, format="exl3", cache="fp16"))
    sampling: frozenset[str] = frozenset({"temperature", "top_p"})
    faults: list[BaseException] = field(default_factory=list)
    rebuild_fault: BaseException | None = None
    calls: list[str] = field(default_factory=list)
    jobs: list[RawJob] = field(default_factory=list)
    pictures: list[Image] = field(default_factory=list)

    def encode(self, text: str, *, whole: bool, images: Sequence[Image] = ()) -> tuple[list[int], Sequence[Any]]:
        self.pictures += images
        return [1] * whole + [ord(one) for one in text], [f"seen {one.mark}" for one in images]

    def plain_ids(self, text: str) -> list[int]:
        return [ord(one) for one in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))

    def pieces(self) -> Sequence[str]:
        return [chr(number) for number in range(256)]

    def stop_ids(self) -> Sequence[int]:
        return [2]

    def room(self, prompt_tokens: int) -> int:
        return self.context - prompt_tokens

    def job(self, ask: Ask) -> RawJob:
        return RawJob(ask, list(self.text[: ask.max_tokens]))

    def enqueue(self, raw: RawJob) -> None:
        self.jobs.append(raw)

    def iterate(self) -> list[dict[str, Any]]:
        self.calls.append("iterate")
        if self.faults:
            raise self.faults.pop(0)
        return [self._step(job) for job in list(self.jobs)]

    def cancel(self, raw: RawJob) -> None:
        self.calls.append("cancel")
        self.jobs.remove(raw)

    def rebuild(self) -> None:
        self.calls.append("rebuild")
        self.jobs.clear()
        if self.rebuild_fault is not None:
            raise self.rebuild_fault

    def facts(self) -> dict[str, Any]:
        return {"cached_tokens": 0}

    def close(self) -> None:
        self.calls.append("close")
        self.jobs.clear()

    def _step(self, job: RawJob) -> dict[str, Any]:
        text = job.left.pop(0)
        job.said += 1
        result = {"job": job, "stage": "streaming", "eos": not job.left, "text": text}
        if not job.left:
            self.jobs.remove(job)
            result |= {
                "eos_reason": "max_new_tokens" if job.said == job.ask.max_tokens else "stop_token",
                "prompt_tokens": len(job.ask.ids),
                "new_tokens": job.said,
                "cached_tokens": 3,
                "time_enqueued": 0.5,
                "time_prefill": 1.0,
                "time_generate": 2.0,
                "accepted_draft_tokens": 2,
                "rejected_draft_tokens": 1,
            }
        return result
