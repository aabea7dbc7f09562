"""The seam between the stepper and an ExLlama engine: what is asked of it (Ask), and what it must do (Runner).

A runner knows one engine's classes and names, and nothing of jobs, templates or OpenAI's shapes. ExLlamaV2's and
ExLlamaV3's generators report in the same words (`iterate()` gives dicts with stage, text, eos, …), so one stepper reads both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..driver import EngineInfo
from ..progress import Report

if TYPE_CHECKING:
    from ...planner.report import Plan

__all__ = ["Ask", "Constraint", "Extras", "Image", "Opener", "Runner"]


@dataclass(frozen=True, slots=True)
class Constraint:
    """What the answer's text must match: a JSON schema (as JSON text), a regular expression, or a grammar."""

    kind: Literal["json_schema", "regex", "lark", "gbnf"]
    text: str


@dataclass(frozen=True, slots=True)
class Image:
    """A picture in a prompt: the encoded file's bytes, and the text that stands for it where the template put it."""

    data: bytes
    mark: str


@dataclass(frozen=True, slots=True)
class Ask:
    """One request in tokens. `sampling` has only names that the runner said it knows, with checked values.

    `stop` are texts and token ids; `top_logprobs` None asks for no probabilities, 0 for the chosen token's alone.
    `special`: special tokens are to appear in the text (a format of tool calls may be written in them).
    """

    ids: Sequence[int]
    max_tokens: int
    min_tokens: int = 0
    sampling: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    stop: tuple[str | int, ...] = ()
    banned: tuple[str, ...] = ()
    top_logprobs: int | None = None
    constraint: Constraint | None = None
    images: Sequence[Any] = ()
    special: bool = False


@dataclass(frozen=True, slots=True)
class Extras:
    """What `load()` was told beyond the plan, in ExLlama's sense.

    `ordinals` are CUDA's numbers of the plan's cards (cuda.per_device spreads values over them). `backend` carries tensor
    parallel's collectives; `dynamic_draft` lets the engine shorten drafts that are rarely accepted;
    `vision` loads the model's own picture encoder too. `warmup` runs every kind of pass once before the first request (None:
    only in tensor parallel, whose ranks must not wait for one that still compiles). `options` go to the generator by its own
    names.
    """

    ordinals: tuple[int, ...]
    backend: Literal["native", "nccl"] = "native"
    dynamic_draft: bool = False
    vision: bool = False
    warmup: bool | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


class Runner(Protocol):
    """A loaded model. Every method is called on the engine thread that loaded it."""

    info: EngineInfo
    sampling: frozenset[str]
    """The sampling fields it knows (params.SAMPLING has them all)."""
    parallel: bool
    """Whether the model is spread tensor-parallel: after any exception its ranks are out of step."""

    def encode(self, text: str, *, whole: bool, images: Sequence[Image] = ()) -> tuple[list[int], Sequence[Any]]:
        """Token ids, and what `Ask.images` wants for the pictures. Special tokens in the text are read as such.

        `whole`: the text is all there is, so the beginning-of-sequence token is added where the model wants one; a chat
        template has written it already.
        """

    def plain_ids(self, text: str) -> list[int]:
        """Token ids of ordinary text: nothing in it is special, nothing is added."""

    def decode(self, ids: Sequence[int]) -> str: ...

    def pieces(self) -> Sequence[str]:
        """The text of every token id, special tokens included."""

    def stop_ids(self) -> Sequence[int]:
        """The token ids with which this model ends what it says."""

    def room(self, prompt_tokens: int) -> int:
        """How many tokens can be generated after a prompt of so many; less than 1 where it is too long."""

    def job(self, ask: Ask) -> Any:
        """The engine's own job. Raises ConfigError for what this engine or model cannot do."""

    def enqueue(self, raw: Any) -> None: ...

    def iterate(self) -> list[dict[str, Any]]: ...

    def cancel(self, raw: Any) -> None: ...

    def rebuild(self) -> None:
        """A new generator on the same weights and cache, without jobs: after an exception out of `iterate`."""

    def facts(self) -> dict[str, Any]:
        """The engine's own numbers, as plain data."""

    def close(self) -> None:
        """Free everything, also after a failed load or a fault."""


# What a runner's module exports as `open_runner`: loads what the plan says and returns the Runner. `report` is called with
# (fraction, message) after each module; it raises LoadError when the load was cancelled. Whatever it raises, and whatever
# else goes wrong, the opener frees what it had loaded, workers too, and raises an error of our tree.
Opener = Callable[["Plan", Extras, Report], Runner]
