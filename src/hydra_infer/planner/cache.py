"""How many bytes the keys and values of a context take, for each engine's ways to store them.

Sources: exllamav3 1.6.5 cache/fp16.py and cache/quant.py (2 to 8 bits and one fp16 scale per 32 elements), exllamav2
0.3.2 cache.py (its Q6 is 8-bit keys with 4-bit values), llama.cpp's cache types, which are ggml types. Latent attention:
exllamav3's cache/mla.py; compressed attention: its cache/dsa.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import ConfigError
from ..models.gguf import TYPES
from ..models.spec import Attention, Compressed, Latent, Mixer
from ..units import Size

__all__ = ["PAGE", "CacheRate", "cache_bytes", "pages", "rate_of"]

# Tokens per page: exllamav3's PAGE_SIZE, the paged attention of exllamav2, and what llama.cpp rounds n_ctx up to.
PAGE = 256

# Bits per element with the scale of each 32 included.
_SCALE = 16 / 32

_EXL2 = {"fp16": (16.0, 16.0), "q8": (8.5, 8.5), "q6": (8.5, 4.5), "q4": (4.5, 4.5), "fp8": (8.0, 8.0)}

# The types llama.cpp takes for --cache-type-k and -v (common/arg.cpp), and the short names other engines use for them.
_GGUF = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
_GGUF_SHORT = {"fp16": "f16", "q8": "q8_0", "q4": "q4_0"}


@dataclass(frozen=True, slots=True)
class CacheRate:
    """Bits per element of keys and of values; `name` is what the engine calls it, `block` what a head must divide by."""

    name: str
    k_bits: float
    v_bits: float
    block: int = 1

    @property
    def plain(self) -> bool:
        """Whether attention reads it as it is, without turning it back into fp16 first."""
        return self.k_bits >= 16 and self.v_bits >= 16

    def nbytes(self, kv_width: int, tokens: int) -> Size:
        """Bytes of one layer's keys and values, `kv_width` elements each per token."""
        return Size(kv_width * tokens * round(2 * (self.k_bits + self.v_bits)) // 16)


def pages(tokens: int) -> int:
    """Tokens rounded up to whole pages."""
    return -(-tokens // PAGE) * PAGE


def cache_bytes(mixer: Mixer | None, rate: CacheRate, tokens: int) -> Size:
    """Bytes one layer's pages take for `tokens` tokens; 0 for layers that keep a fixed state instead (state.py)."""
    if isinstance(mixer, Latent):
        return _latent_bytes(mixer, rate, tokens)
    if isinstance(mixer, Compressed) and mixer.rate:
        return _compressed_bytes(mixer, rate, tokens)
    if isinstance(mixer, Attention) and not mixer.ring:
        return rate.nbytes(mixer.kv_width, tokens)
    return Size(0)


def _latent_bytes(mixer: Latent, rate: CacheRate, tokens: int) -> Size:
    """The latent at the rate of keys, the rotary key and the indexer's keys always in 16 bit."""
    latent = mixer.kv_rank * round(2 * rate.k_bits) * tokens // 16
    plain = mixer.rope_dim
    if mixer.indexer is not None:
        plain += mixer.indexer.head_dim
    pooled = 0
    if mixer.indexer is not None and mixer.indexer.pool:
        # Beside every key the weights it has in its pool, and the pooled keys themselves.
        plain += mixer.indexer.head_dim
        pooled = tokens // mixer.indexer.pool * mixer.indexer.head_dim
    return Size(latent + 2 * (plain * tokens + pooled))


def _compressed_bytes(mixer: Compressed, rate: CacheRate, tokens: int) -> Size:
    """An entry per window: what is not rotary at the rate of keys, the rest and the indexer's key always in 16 bit."""
    latent, plain = mixer.head_dim - mixer.rope_dim, mixer.rope_dim
    plain += mixer.indexer.head_dim if mixer.indexer is not None else 0
    return Size(tokens // mixer.rate * (latent * round(2 * rate.k_bits) // 16 + 2 * plain))


def rate_of(cache: str, form: str) -> CacheRate:
    """The rate a user's word means for a model's format. Raises ConfigError for one that format's engine lacks."""
    if not isinstance(cache, str):
        raise ConfigError(f"cache={cache!r} is not a name", hint="for example 'fp16', 'q8' or '8,4'")
    word = re.sub(r"\s", "", cache.lower())
    if form == "gguf":
        return _gguf_rate(cache, word)
    if form == "exl2":
        if word not in _EXL2:
            raise ConfigError(f"cache={cache!r}: exl2 has {', '.join(_EXL2)}", hint="its q6 is 8-bit keys with 4-bit values")
        return CacheRate(word, *_EXL2[word])
    return _exl3_rate(cache, word)


def _exl3_rate(cache: str, word: str) -> CacheRate:
    if word == "fp16":
        return CacheRate("fp16", 16.0, 16.0)
    match = re.fullmatch(r"q([2-8])|([2-8]),([2-8])", word)
    if match is None:
        raise ConfigError(f"cache={cache!r}: exl3 has fp16, q2 to q8, and key,value bits from 2 to 8", hint="as in '8,4'")
    k_bits, v_bits = (match[1], match[1]) if match[1] else (match[2], match[3])
    name = f"q{k_bits}" if k_bits == v_bits else f"{k_bits},{v_bits}"
    return CacheRate(name, int(k_bits) + _SCALE, int(v_bits) + _SCALE, 32)


def _gguf_rate(cache: str, word: str) -> CacheRate:
    names = [_GGUF_SHORT.get(part, part) for part in word.split(",")]
    names = names * 2 if len(names) == 1 else names
    if len(names) != 2 or any(name not in _GGUF for name in names):
        raise ConfigError(f"cache={cache!r}: llama.cpp has {', '.join(_GGUF)}", hint="or a pair of them, keys first")
    types = {kind.name: kind for kind in TYPES.values()}
    k, v = types[names[0]], types[names[1]]
    name = names[0] if names[0] == names[1] else ",".join(names)
    return CacheRate(name, 8 * k.nbytes / k.block, 8 * v.nbytes / v.block, max(k.block, v.block))
