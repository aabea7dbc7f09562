"""What exllamav3's converter calls of its compiled extension, in torch on the CPU; and torch as if this CPU were its card.

Everything else that a conversion does is exllamav3's own Python: it reads the weights, deals out the bits, captures the Hessians
of its own calibration text, scales and rotates, quantises by LDLQ, refits the scales, keeps checkpoints and writes the folder.
Replaced are the kernels below, attention by Triton (its own fall-back on torch stands in), reading files by its C++ threads (its
own reader in Python stands in), and a matrix product that it has in Triton.
"""

from __future__ import annotations

import contextlib
import math
import sys
import threading
from collections.abc import Callable
from typing import Any

import torch
import trellis
from torch.overrides import TorchFunctionMode

__all__ = ["as_card", "install"]

Tensor = torch.Tensor
Put = Callable[[Any, str, Any], None]


def install(put: Put) -> None:
    """Put it all where exllamav3, which engine3 must have been imported for, looks for it; `put` is setattr, or a test's own."""
    from exllamav3.loader.safetensors import SafetensorsCollection
    from exllamav3.modules import Module, linear
    from exllamav3.modules.attention_fn import dispatch
    from exllamav3.modules.quant.exl3_lib import hessian_packed

    for function in KERNELS:
        put(sys.modules["exllamav3_ext"], function.__name__, function)
    put(dispatch, "attn_fns", [dispatch.fn_torch_sdpa_fallback_nocache])
    put(linear, "accumulate_", lambda packed, x: packed.add_(hessian_packed.pack(x.float().T @ x.float())))
    put(Module, "prepare_for_device", lambda _, x, __: x.clone())  # it comes from the machine's memory: see _OnCpu
    begin = SafetensorsCollection.__init__

    def begun(self: Any, *arguments: Any, **named: Any) -> None:
        begin(self, *arguments, **named)
        self.load_method = "python"

    put(SafetensorsCollection, "__init__", begun)


def as_card() -> None:
    """From now on, in this thread and all that it begins, card number anything is this CPU."""
    cuda: Any = torch.cuda
    cuda.Stream = cuda.Event = cuda.current_stream = _AtOnce
    cuda.stream = lambda _: contextlib.nullcontext()
    cuda.synchronize = cuda.empty_cache = lambda *_: None
    cuda.current_device = lambda: 0
    torch.Tensor.record_stream = lambda *_: None  # type: ignore[method-assign, assignment]
    run = threading.Thread.run

    def running(self: threading.Thread) -> None:
        with _OnCpu():  # a mode is a thread's own
            run(self)

    threading.Thread.run = running  # type: ignore[method-assign]
    _OnCpu().__enter__()


class _AtOnce:
    """A stream, or an event in one: on a CPU everything is done when it has been asked for."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def wait_event(self, _: Any) -> None: ...

    def record(self, *_: Any) -> None: ...

    def synchronize(self) -> None: ...


class _OnCpu(TorchFunctionMode):
    """What is asked of a card is done here."""

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        named = dict(named or {})
        if function is torch.device:
            return torch.device("cpu")
        named.pop("pin_memory", None)
        if function is Tensor.to and len(arguments) > 1 and isinstance(arguments[1], int):
            arguments = (arguments[0], "cpu", *arguments[2:])
        if isinstance(named.get("device"), int):
            named["device"] = "cpu"
        made = function(*arguments, **named)
        # Between a card and its machine a tensor is copied, never the same: what is then done in place is done to one of them.
        if function in (Tensor.cpu, Tensor.to) and made is arguments[0]:
            return made.clone()
        return made


# ---- the code --------------------------------------------------------------------------------------------------------------


def quantize_tiles_scratch(_device: int, _rate: int, _mcg: bool, _mul1: bool, _length: int) -> tuple[bool, int]:
    return True, 1


def quantize_tiles(tiles: Tensor, found: Tensor, windows: Tensor, _costs: Any, _edges: Any, rate: int, *books: bool) -> None:
    _quantized(tiles, found, windows, rate, books == (False, True))


def quantize_tiles_frac(tiles: Tensor, found: Tensor, windows: Tensor, _costs: Any, _edges: Any, whole: int, turns: int) -> None:
    _quantized(tiles, found, windows, whole + 0.5, turns == 0xAAAA)


def _quantized(tiles: Tensor, found: Tensor, windows: Tensor, rate: float, known: bool) -> None:
    assert known, "the codebook is mul1, and half rates take turns"
    best = trellis.encode(tiles, rate)
    found.copy_(trellis.decode(best))
    windows.copy_(best.to(torch.uint16).view(torch.int16))


def pack_trellis(packed: Tensor, windows: Tensor, rate: float) -> None:
    packed.copy_(trellis.pack(windows.view(torch.uint16).long(), rate))


def pack_trellis_frac(packed: Tensor, windows: Tensor, whole: int, _turns: int) -> None:
    pack_trellis(packed, windows, whole + 0.5)


def reconstruct(weights: Tensor, packed: Tensor, rate: float, _mcg: bool, mul1: bool) -> None:
    from exllamav3.modules.quant.exl3_lib.quantize import tensor_core_perm_i

    assert mul1
    down, across, _ = packed.shape
    tiles = trellis.decode(trellis.unpack(packed, rate))[..., tensor_core_perm_i(packed.device)]
    weights.copy_(tiles.view(down, across, 16, 16).transpose(1, 2).reshape(weights.shape))


def reconstruct_had_slice(
    weights: Tensor, packed: Tensor, suh: Tensor, svh: Tensor, rate: float, mcg: bool, mul1: bool, first: int
) -> None:
    assert first == 0
    inner = torch.empty(weights.shape)
    reconstruct(inner, packed, rate, mcg, mul1)
    weights.copy_(suh.float().unsqueeze(1) * _rotated(_rotated(inner.T).T) * svh.float())


def _rotated(x: Tensor) -> Tensor:
    """Each 128 numbers of a row through a Hadamard matrix."""
    from exllamav3.util.hadamard import get_hadamard_dt

    return (x.unflatten(-1, (-1, 128)) @ get_hadamard_dt(128, "cpu", torch.float, 1 / math.sqrt(128))).flatten(-2)


def had_r_128(x: Tensor, out: Tensor, before: Tensor | None, after: Tensor | None, scale: float) -> None:
    turned = _rotated(x.float() if before is None else x.float() * before.float()) * scale
    out.copy_(turned if after is None else turned * after.float())


def count_inf_nan(x: Tensor, counts: Tensor) -> None:
    counts[0] += x.isinf().sum()
    counts[1] += x.isnan().sum()


# ---- what a Llama's layers compute --------------------------------------------------------------------------------------------


def hgemm(a: Tensor, b: Tensor, c: Tensor) -> None:
    c.copy_(a.float() @ b.float())


def hgemm_recon(a: Tensor, b: Tensor, c: Tensor) -> None:
    hgemm(a, b, c)


class BC_LinearEXL3:  # noqa: N801 - its name in the extension
    """A quantised matrix at few rows."""

    def __init__(self, packed: Tensor, suh: Tensor, svh: Tensor, rate: float, bias: Tensor | None, mcg: bool, mul1: bool, _: Any):
        self._bias, self._weight = bias, torch.empty((len(suh), len(svh)))
        reconstruct_had_slice(self._weight, packed, suh, svh, rate, mcg, mul1, 0)

    def run_alloc(self, x: Tensor, _width: int, single: bool) -> Tensor:
        y = x.float() @ self._weight
        return (y if self._bias is None else y + self._bias).to(torch.float if single else torch.half)


def rms_norm(
    x: Tensor,
    weight: Tensor | None,
    y: Tensor,
    epsilon: float,
    bias: float,
    scale: float,
    spans: bool,
    adds: bool,
    groups: int = 1,
) -> None:
    assert not spans
    assert groups == 1
    normed = x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + epsilon) * scale
    normed = normed if weight is None else normed * (weight.float() + bias)
    y.copy_(y + normed if adds else normed)


def rms_norm_res_in(
    x: Tensor, weight: Tensor | None, y: Tensor, residual: Tensor, epsilon: float, bias: float, scale: float
) -> None:
    residual += x
    rms_norm(residual, weight, y, epsilon, bias, scale, False, False)


def silu_mul(gate: Tensor, up: Tensor, out: Tensor, limit: float) -> None:
    assert limit == 0
    out.copy_(torch.nn.functional.silu(gate.float()) * up.float())


def rope(q: Tensor, out_q: Tensor, k: Tensor | None, out_k: Tensor | None, frequencies: Tensor, first: int, *rest: Any) -> None:
    positions, position_ids, style, factor, q_norm, k_norm = rest[:6]
    assert (positions, position_ids, q_norm, k_norm) == (None,) * 4
    assert style == 2, "each half of a head turns with the other"
    angles = (first + torch.arange(q.shape[1])).unsqueeze(1) * frequencies
    cos, sin = (wave.unsqueeze(1) * factor for wave in (angles.cos(), angles.sin()))
    for source, target in ((q, out_q), (k, out_k)):
        if source is not None and target is not None:
            left, right = source.float().chunk(2, -1)
            target.copy_(torch.cat((left * cos - right * sin, right * cos + left * sin), -1))


KERNELS: tuple[Callable[..., Any], ...] = (
    quantize_tiles_scratch,
    quantize_tiles,
    quantize_tiles_frac,
    pack_trellis,
    pack_trellis_frac,
    reconstruct,
    reconstruct_had_slice,
    had_r_128,
    count_inf_nan,
    hgemm,
    hgemm_recon,
    BC_LinearEXL3,
    rms_norm,
    rms_norm_res_in,
    silu_mul,
    rope,
)
