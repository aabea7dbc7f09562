"""Packages: what pip installs beside the machine's own Python, and the compiled extensions, built once and carried home."""

from __future__ import annotations

import lzma
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from .meter import Lacking

__all__ = ["build", "install", "keep", "unpack"]

REQUIREMENTS = Path(__file__).with_name("requirements.txt")

# Pieces of a carried extension: they pass where files of more than 16 MiB do not.
PIECE = 15 * 2**20


def install(state: Path, *, wheels: str | None) -> dict[str, Any]:
    """Into `state`/site, from the folder `wheels` where one is given, else from where pip looks.

    --target and not a virtual environment: one made from an environment does not see that environment's packages, torch
    first of all. --no-deps: what is not listed is there, and must not be replaced.
    """
    source = ["--no-index", "--find-links", wheels] if wheels else []
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--upgrade"]
    command += ["--target", str(state / "site"), *source, "--requirement", str(REQUIREMENTS)]
    ended = subprocess.run(command, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if ended.returncode:
        raise Lacking(f"pip could not install what tests/gpu/requirements.txt lists: {ended.stdout.strip()[-1500:]}")
    installed = sorted(path.name.removesuffix(".dist-info") for path in (state / "site").glob("*.dist-info"))
    return {"judged": [], "facts": {"from": wheels or "the index", "installed": installed}}


def build(state: Path, *, package: str) -> dict[str, Any]:
    """Import `package`: torch compiles its extension into `state`/ext unless it lies there already.

    Stopped in the middle, it goes on where it was: ninja knows what is done. The lock that a stopped build leaves would make
    the next one wait for ever (exllamav2 issue 495); nobody else builds in this folder.
    """
    import torch

    folder = state / "ext" / f"{package}_ext"
    library = folder / f"{package}_ext.so"
    objects, began = len(list(folder.glob("*.o"))), time.perf_counter()
    carried = library.exists() and _imports(package)
    if not carried:
        library.unlink(missing_ok=True)
        (folder / "lock").unlink(missing_ok=True)
        os.environ["TORCH_CUDA_ARCH_LIST"] = "{}.{}".format(*torch.cuda.get_device_capability())
        os.environ["MAX_JOBS"] = str(os.cpu_count())
        if not _imports(package):
            raise RuntimeError(f"{package} does not import: the log has the compiler's words")
    facts = {"carried": carried, "import_s": round(time.perf_counter() - began, 1), "objects_before": objects}
    facts |= {"objects": len(list(folder.glob("*.o"))), "library_bytes": library.stat().st_size}
    return {"judged": [], "facts": facts}


def _imports(package: str) -> bool:
    """In a process of its own: an extension that does not fit may end the process that loads it."""
    return subprocess.run([sys.executable, "-c", f"import {package}"], check=False).returncode == 0


def keep(state: Path, out: Path) -> list[Path]:
    """The built extensions as compressed pieces in `out`; the pieces."""
    pieces = []
    for library in sorted((state / "ext").glob("*/*_ext.so")):
        packed = lzma.compress(library.read_bytes(), preset=1)
        for number, start in enumerate(range(0, len(packed), PIECE)):
            piece = out / f"{library.name}.xz.{number:02}"
            piece.write_bytes(packed[start : start + PIECE])
            pieces.append(piece)
    return pieces


def unpack(folder: Path, state: Path) -> list[Path]:
    """Put the pieces that `keep` made back where `build` and every later import find them; the libraries."""
    libraries = []
    for first in sorted(folder.glob("*_ext.so.xz.00")):
        name = first.name.removesuffix(".xz.00")
        packed = b"".join(piece.read_bytes() for piece in sorted(folder.glob(f"{name}.xz.*")))
        library = state / "ext" / name.removesuffix(".so") / name
        library.parent.mkdir(parents=True, exist_ok=True)
        library.write_bytes(lzma.decompress(packed))
        libraries.append(library)
    return libraries
