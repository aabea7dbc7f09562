"""Whether two models speak with the same tokens, from their sizes and their tokenizer.json: nothing is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..units import MIB
from .spec import ModelSpec
from .strict_json import JsonDict, read_object

__all__ = ["Agreement", "compare"]

# Gemma 3's tokenizer.json, among the largest, has 33 MB.
MAX_TOKENIZER = 128 * MIB

# Tables are padded differently in models of one family (Qwen2.5-0.5B has 151,936 rows, 72B 152,064). llama.cpp allows the
# same difference (SPEC_VOCAB_MAX_SIZE_DIFFERENCE in its speculative decoding).
MOST_PADDING = 128

Agreement = tuple[str | None, bool]


def compare(main: ModelSpec, draft: ModelSpec) -> Agreement:
    """Why the draft cannot speak for the main model, or None; and whether their tokenizers were compared, not just sizes.

    Neither ExLlama checks this: a token beyond the main model's table would be read from outside of it.
    Raises ConfigError for a tokenizer.json that is broken.
    """
    ours, theirs = main.geometry.vocab, draft.geometry.vocab
    if abs(ours - theirs) > MOST_PADDING:
        return f"its vocabulary has {theirs} tokens, {main.name} has {ours}", True
    files = [_tokenizer(spec) for spec in (main, draft)]
    if None in files:
        return (
            None if ours == theirs else f"its vocabulary has {theirs} tokens, {main.name} {ours}, and no tokenizer.json"
        ), False
    first, second = (_Words(path) for path in files if path is not None)
    return first.difference(second), True


def _tokenizer(spec: ModelSpec) -> Path | None:
    folder = spec.path if spec.path.is_dir() else spec.path.parent
    path = folder / "tokenizer.json"
    return path if path.is_file() and spec.format != "gguf" else None


def _is_token(value: Any) -> bool:
    return isinstance(value, dict) and type(value.get("id")) is int and isinstance(value.get("content"), str)


class _Words:
    """The two tables of a tokenizer.json: words and special tokens, by number."""

    def __init__(self, path: Path) -> None:
        self.path = path
        values = read_object(path, MAX_TOKENIZER)
        self.words = self._words(values)
        self.special = self._special(values)

    def _words(self, values: JsonDict) -> Any:
        model = values.get("model")
        if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict | list):
            raise ConfigError(f"{self.path}: model.vocab is missing")
        return model["vocab"]

    def _special(self, values: JsonDict) -> Mapping[int, str]:
        added = values.get("added_tokens") or []
        if not isinstance(added, list) or not all(_is_token(token) for token in added):
            raise ConfigError(f"{self.path}: added_tokens is not a list of tokens with id and content")
        return {token["id"]: token["content"] for token in added}

    def difference(self, other: _Words) -> str | None:
        if self.words != other.words:
            return f"its tokenizer.json has other words than {self.path}"
        for number in sorted(self.special.keys() & other.special.keys()):
            if self.special[number] != other.special[number]:
                return (
                    f"token {number} is {other.special[number]!r:.100} in it and {self.special[number]!r:.100} in the main model"
                )
        return None
