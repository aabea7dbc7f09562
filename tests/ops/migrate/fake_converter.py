"""A stand-in for exllamav3's converter: its files, its lines as 1.6.5 prints them, its checkpoints, and its ends."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["fake_python"]

_SOURCE = """\
import json, shutil, sys
from pathlib import Path

words = sys.argv[1:]
calls = Path({calls!r})
calls.write_text((calls.read_text() if calls.exists() else "") + json.dumps(words) + "\\n")
given = dict(zip(words[2:], words[3:]))
work = Path(given["-w"])
if "-r" in words:
    args = json.loads((work / "args.json").read_text())
    job = json.loads((work / "ckpt" / "job.json").read_text())
    print(" -- Resuming existing job")
else:
    if {error!r}:
        print(" !! Error: " + {error!r})
        sys.exit(0)
    args = {{"in_dir": given["-i"], "out_dir": given["-o"], "bits": float(given["-b"])}}
    job = {{"next_module_idx": 0}}
    (work / "ckpt").mkdir(parents=True, exist_ok=True)
    (work / "args.json").write_text(json.dumps(args))
    (work / "ckpt" / "job.json").write_text(json.dumps(job))
    print(" -- Creating new job")
stop, hold = Path({stop!r}), Path({hold!r})
if hold.exists():
    hold.read_text()  # a pipe: until somebody has opened and closed its other end
for layer in range(job["next_module_idx"], {layers}):
    print(f" -- Quantized: model.layers.{{layer}}.mlp.up_proj      bpw:  4.00  proxy_err: 0.001234  o  g_sc: 0.910000  [1.00 s]")
    print(f" -- Quantized: model.layers.{{layer}}      bpw:  4.02  rfn: 0.01  cos: 0.0  sqnr: 30.0  [12.34 s]  rss: 2.00 GB")
    print(" -- Estimated remaining time: 1 hour, 3 minutes (avg over last 8 blocks)", flush=True)
    (work / "new.json").write_text(json.dumps({{"next_module_idx": layer + 1}}))
    (work / "new.json").replace(work / "ckpt" / "job.json")
    if stop.exists() and int(stop.read_text()) == layer:
        stop.unlink()
        print("Traceback (most recent call last):")
        print("torch.OutOfMemoryError: CUDA out of memory", flush=True)
        sys.exit(1)
shutil.copytree({made!r}, args["out_dir"], dirs_exist_ok=True)
(Path(args["out_dir"]) / "quantization_config.json").write_text("{{}}")
print(" -- All done")
"""


def fake_python(folder: Path, made: Path, *, layers: int, error: str = "") -> tuple[str, Path, Path]:
    """A program to be given as `python=`, the file of its calls, and the file that names a layer to fail after, once.

    It leaves a copy of the folder `made`; `error` is what it finds wrong with its arguments, ending with status 0 as it does.
    Beside it a named pipe "hold" makes it wait before its first layer.
    """
    program, calls, stop = folder / "python", folder / "calls", folder / "stop"
    source = _SOURCE.format(
        calls=str(calls), made=str(made), layers=layers, stop=str(stop), hold=str(folder / "hold"), error=error
    )
    program.write_text(f"#!{sys.executable}\n{source}")
    program.chmod(0o755)
    return str(program), calls, stop
