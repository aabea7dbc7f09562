"""What an engine's process takes beside weights, cache and working memory: brackets from measurements, not formulas."""

from __future__ import annotations

from ..hardware.gpu import Gpu
from ..models.spec import Geometry
from ..units import GIB, MIB, Size
from .usage import Range

__all__ = ["CONTEXT", "SLAB", "exllamav2", "exllamav3", "exllamav3_parallel", "llamacpp_gpu", "llamacpp_host"]

# ExLlamaV3 on one card: CUDA context, kernels, workspaces and small statics. Low: a bare context (InvokeAI issue 9413, pytorch
# issue 107667). Likely: what an RTX 4090 left at the longest context that loaded and lacked at the next (exllamav3 issue 50):
# 0.15 to 0.36 GiB beside weights, cache and transient with gemma-3-27b, 0.25 to 0.44 with Nemotron-49B. High: nvidia-smi less
# weights and cache was 0.60 to 0.75 GiB over four contexts there, which has a part of the transient in it.
EXLLAMAV3 = Range(Size(256 * MIB), Size(round(0.33 * GIB)), Size(round(0.9 * GIB)))

# A bare CUDA context (the two issues above). Under tensor parallel every card has two: its worker's, and one of the parent
# process, which touches all cards (exllamav3 1.6.5, model/model_tp.py). That they add up is inferred, not measured.
CONTEXT = Range(Size(256 * MIB), Size(280 * MIB), Size(round(0.3 * GIB)))

# ExLlamaV2 likewise, with a high end from older versions: CodeLlama-13B 2.65 bpw took 7,968 MiB (exllamav2 issue 3) and
# miquliz-120b 3.0 bpw 48,305 MiB (its model page), 1.17 and 0.95 GiB more than all that is counted for them.
EXLLAMAV2 = Range(EXLLAMAV3.low, Size(round(0.69 * GIB)), Size(round(1.2 * GIB)))

# Tensors up to 16 MiB share blocks of this size, so one may stand nearly empty (exllamav3 1.6.5, loader/safetensors.py).
SLAB = 128 * MIB

# llama.cpp on one card: 113 MiB is what was left of published totals on an RTX 3090 Ti beyond what is counted here;
# 0.3 GiB a bare CUDA context; 500 MiB is what gguf-parser-go allows for it.
LLAMACPP_GPU = Range(Size(113 * MIB), Size(round(0.3 * GIB)), Size(500 * MIB))

# llama.cpp in system RAM: process, vocabulary and server. Measured with xllamacpp 2026.10.11549 in a Python process and
# a vocabulary of 49,152 tokens: 63 MiB, of which 31 are Python's; the larger vocabularies have five times as many.
LLAMACPP_HOST = Range(Size(48 * MIB), Size(64 * MIB), Size(256 * MIB))

# The most SMs of any card in the catalogue, for cards whose number is not known.
MOST_SMS = 188


def exllamav3(gpu: Gpu, geometry: Geometry, quantised: bool) -> Range:
    """ExLlamaV3 on one card: process, an emptyish slab, and where weights are quantised the expert kernels' buffers."""
    base = _measured(gpu) or EXLLAMAV3
    buffers = _expert_buffers(gpu, geometry) if quantised else 0
    return Range(base.low, base.likely, Size(base.high + SLAB)).plus(buffers)


def exllamav3_parallel(gpu: Gpu, geometry: Geometry, quantised: bool) -> Range:
    """ExLlamaV3 on one card of a tensor-parallel split: the same and a second CUDA context."""
    alone = exllamav3(gpu, geometry, quantised)
    more = CONTEXT
    return Range(Size(alone.low + more.low), Size(alone.likely + more.likely), Size(alone.high + more.high))


def exllamav2(gpu: Gpu, geometry: Geometry, rows: int) -> Range:
    """ExLlamaV2 on one card; at the high end with the attention scores it holds where flash-attn is not installed.

    Those are two fp16 matrices of rows x rows per head (attn.py, temp_attn_size).
    """
    base = _measured(gpu) or EXLLAMAV2
    heads = max(attention.heads for attention, _ in geometry.plain_layers())
    return Range(base.low, base.likely, Size(base.high + 2 * heads * rows * rows * 2))


def llamacpp_gpu(gpu: Gpu) -> Range:
    """llama.cpp on one card."""
    return _measured(gpu) or LLAMACPP_GPU


def llamacpp_host() -> Range:
    """llama.cpp's process in system RAM."""
    return LLAMACPP_HOST


def _measured(gpu: Gpu) -> Range | None:
    return None if gpu.overhead is None else Range(gpu.overhead, gpu.overhead, gpu.overhead)


def _expert_buffers(gpu: Gpu, geometry: Geometry) -> int:
    """Slots of the fused expert kernels, once per card for all layers: two fp16 buffers of 256 rows for every 8 SMs."""
    wide = max((layer.mlp.intermediate for layer in geometry.layers if layer.mlp and layer.mlp.experts), default=0)
    if not wide:
        return 0
    return 2 * ((gpu.sms or MOST_SMS) // 8) * 256 * (geometry.hidden + wide) * 2
