"""Who drafts: a small model, the model's own MTP head, or the text so far; and how many tokens ahead."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from ..errors import ConfigError
from ..models.spec import ModelSpec
from ..models.tokenizer import Agreement
from ..units import Size
from .usage import ZERO
from .weights import Weights, weigh

__all__ = ["Drafter", "drafter_of", "model_drafter"]

# ExLlama drafts four tokens ahead where nothing is said (exllamav3 1.6.5 generator.py, exllamav2 0.3.2 dynamic.py). For
# llama.cpp's MTP two is what its community measures best on cards of 24 GB (qwen38-mtp).
TOKENS = 4
TOKENS_MTP_LLAMACPP = 2
MOST_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Drafter:
    """`kind` is "model", "mtp" or "ngram"; `tokens` are drafted per round (0: as many as the engine does by itself).

    `weights` and `layers` are those of a model (no weights: the engine does not load its format), or `mtp` the bytes of an
    MTP head of so many layers. `problem` says why it cannot draft for the main model, `compared` whether tokenizers were
    compared or only the sizes of vocabularies.
    """

    kind: str
    tokens: int = 0
    spec: ModelSpec | None = None
    weights: Weights | None = None
    mtp: Size = ZERO
    layers: int = 0
    problem: str | None = None
    compared: bool = True

    @property
    def takes_room(self) -> bool:
        """Whether anything of it lies on a card. An invalid pair is counted too: memory is a question of its own."""
        return self.weights is not None or self.mtp > 0


def model_drafter(main: ModelSpec, draft: ModelSpec, agreement: Agreement) -> Drafter:
    """A small model as the drafter of `main`. `agreement` is what comparing their tokenizers gave."""
    problem, compared = agreement
    loads = _engine(main) == _engine(draft)
    if not loads:
        problem = f"it is {draft.format}, which the engine of a {main.format} model does not load"
    if problem is not None:
        problem = f"{draft.name} cannot draft for {main.name}: {problem}"
    return Drafter("model", 0, draft, weigh(draft) if loads else None, ZERO, len(draft.geometry.layers), problem, compared)


def _engine(spec: ModelSpec) -> str:
    return "exl3" if spec.format == "hf" else spec.format


def drafter_of(draft: Any, tokens: Any, spec: ModelSpec) -> Drafter | None:
    """The Drafter that `draft=` means for a model, with its number of tokens. Raises ConfigError naming the argument."""
    if draft is None:
        if tokens is not None:
            raise ConfigError(f"draft_tokens={tokens!r} without a draft", hint="say draft= as well: a folder, 'mtp' or 'ngram'")
        return None
    if not isinstance(draft, Drafter):
        if draft not in ("mtp", "ngram"):
            raise ConfigError(f"draft={draft!r} is not read here", hint="'mtp' or 'ngram'; for a model call plan(draft=folder)")
        draft = _mtp(spec) if draft == "mtp" else Drafter("ngram")
    if tokens is None:
        tokens = draft.tokens or (TOKENS_MTP_LLAMACPP if spec.format == "gguf" and draft.kind == "mtp" else TOKENS)
    if type(tokens) is not int or not 1 <= tokens <= MOST_TOKENS:
        raise ConfigError(f"draft_tokens={tokens!r} is not a number from 1 to {MOST_TOKENS}")
    drafter: Drafter = replace(draft, tokens=tokens)
    return drafter


def _mtp(spec: ModelSpec) -> Drafter:
    """The head's tensors are Qwen's "mtp.…", or layers beyond the model's last (DeepSeek, GLM, and every GGUF file)."""
    count = len(spec.geometry.layers)
    names = [name for name in spec.tensors if name.startswith("mtp.") or (_number(name) or 0) >= count]
    layers = len({_number(name) for name in names} - {None})
    size = Size(sum(spec.tensors[name].nbytes for name in names))
    missing = None if names else f"{spec.name} has no MTP head in its files"
    return Drafter("mtp", mtp=size, layers=layers, problem=missing)


def _number(name: str) -> int | None:
    """The layer a name tells: "mtp.layers.0.…", "model.layers.61.…", "blk.64.…"."""
    parts: Iterable[tuple[str, str]] = pairwise(name.split("."))
    found = next((after for before, after in parts if before in ("layers", "blk")), "")
    return int(found) if found.isdigit() else None
