"""What was used: answers, tokens, seconds and cost, by backend and model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import table

if TYPE_CHECKING:
    from .backend import Backend
    from .call import Ended

__all__ = ["Entry", "Ledger"]


class Entry(NamedTuple):
    """Sums over answers. `uncounted` are those whose tokens the server did not tell; `cost` is as the server told it, else
    by the backend's costs per token, in their currency."""

    answers: int = 0
    broken: int = 0
    left: int = 0
    uncounted: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    cost: float = 0.0

    def plus(self, ended: Ended, backend: Backend) -> Entry:
        """With one more answer."""
        usage = ended.usage
        prompt, completion = usage.prompt_tokens or 0, usage.completion_tokens or 0
        return Entry(
            self.answers + 1,
            self.broken + (ended.failure is not None),
            self.left + ended.left,
            self.uncounted + (usage.prompt_tokens is None and usage.completion_tokens is None),
            self.prompt_tokens + prompt,
            self.completion_tokens + completion,
            self.seconds + ended.seconds,
            self.cost + (_cost(prompt, completion, backend) if ended.cost is None else ended.cost),
        )


def _cost(prompt: int, completion: int, backend: Backend) -> float:
    return prompt * (backend.input_cost_per_token or 0.0) + completion * (backend.output_cost_per_token or 0.0)


@dataclass(frozen=True, slots=True)
class Ledger:
    """Rows of (backend, model, Entry); print it for a table."""

    rows: tuple[tuple[str, str, Entry], ...]

    def __iter__(self) -> Iterator[tuple[str, str, Entry]]:
        return iter(self.rows)

    @property
    def total(self) -> Entry:
        """All rows together."""
        entries = [entry for _, _, entry in self.rows]
        return Entry(**{name: sum(getattr(entry, name) for entry in entries) for name in Entry._fields})

    def __str__(self) -> str:
        return table.text(self._lines(), right=range(2, 8))

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": str(self), "text/html": table.html(self._lines(), right=range(2, 8))}

    def _lines(self) -> list[tuple[str, ...]]:
        """Head, rows and total."""
        lines: list[tuple[str, ...]] = [("backend", "model", "answers", "broken", "tokens in", "tokens out", "seconds", "cost")]
        for backend, model, entry in (*self.rows, ("total", "", self.total)):
            counts = (entry.answers, entry.broken, entry.prompt_tokens, entry.completion_tokens)
            lines.append((backend, model, *map(str, counts), f"{entry.seconds:.1f}", f"{entry.cost:.4f}"))
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        rows = [{"backend": backend, "model": model, **entry._asdict()} for backend, model, entry in self.rows]
        return {"rows": rows, "total": self.total._asdict()}
