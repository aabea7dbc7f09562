"""Pictures: from an encoded file's bytes to what exllamav3 puts in its place in a prompt."""

from __future__ import annotations

import functools
import io
from typing import Any

from ...errors import ConfigError, MissingExtra
from .trouble import named

__all__ = ["Pictures"]

# A chat sends its earlier pictures again with every turn, and only the very same embedding finds its pages in the cache.
KEPT = 16


class Pictures:
    """The vision tower of one model, and the embeddings of the last few pictures it saw."""

    def __init__(self, tower: Any, tokenizer: Any) -> None:
        self._tower, self._tokenizer = tower, tokenizer
        self.embedding = functools.lru_cache(KEPT)(self._embedding)

    def _embedding(self, data: bytes) -> Any:
        """An MMEmbedding; its `text_alias` stands for the picture in a text. Raises ConfigError, OutOfMemory."""
        import torch

        picture = _picture(data)
        try:
            with torch.inference_mode():
                return self._tower.get_image_embeddings(tokenizer=self._tokenizer, image=picture)
        except torch.cuda.OutOfMemoryError as error:
            raise named(error, "exllamav3", "prefill") from error


def _picture(data: bytes) -> Any:
    try:
        import PIL.Image
    except ImportError as error:
        raise MissingExtra("pictures need pillow, which is not installed", hint="pip install pillow") from error
    try:
        return PIL.Image.open(io.BytesIO(data)).convert("RGB")
    except (OSError, PIL.Image.DecompressionBombError) as error:
        raise ConfigError(f"a picture of {len(data)} bytes cannot be read: {error}") from error
