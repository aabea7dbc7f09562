"""The process that llama.cpp runs in: reads what to load from stdin, tells its address on stdout, ends with its parent.

It is started as a script, so it imports nothing of hydra_infer. stdin brings one JSON line and then stays open: its end
is the parent's end, on every system.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any


def main() -> None:
    # Whatever native code prints must not get between the lines of the report.
    report = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    spec = json.loads(sys.stdin.buffer.readline())
    sys.path[:] = spec["sys_path"]
    # Ctrl-C on a terminal goes to the parent's whole group; the parent decides what it means for us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with_parent(True)
    try:
        server = _serve(spec)
    except RuntimeError:
        sys.exit(1)  # llama.cpp has logged the reason; the exception has none
    _die_with_parent(False)
    report.write(json.dumps({"url": server.listening_address}) + "\n")
    report.flush()
    while sys.stdin.buffer.read(1):
        pass
    os._exit(0)  # nothing to save, and an orderly end would wait for the answers in flight


def _serve(spec: dict[str, Any]) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = spec["path"]
    params.model_alias = {spec["name"]}
    params.port = spec["port"]
    params.api_keys = [spec["api_key"]]
    # llama.cpp shares n_ctx out among the slots; kv_unified would let one slot take another's.
    params.n_ctx = spec["context"] * spec["slots"]
    params.n_parallel = spec["slots"]
    params.kv_unified = False
    keys, values = spec["cache"][0], spec["cache"][-1]
    params.cache_type_k = xllamacpp.ggml_type[f"GGML_TYPE_{keys.upper()}"]
    params.cache_type_v = xllamacpp.ggml_type[f"GGML_TYPE_{values.upper()}"]
    params.cpuparams.n_threads = spec["threads"]
    params.cpuparams_batch.n_threads = spec["threads"]
    # The plan has counted what is loaded, on the CPU: llama.cpp shall not fit it to the machine in another way, nor keep
    # its cache of old prompts, which by default takes up to 8 GiB more (cache_ram_mib, build 11549).
    params.n_gpu_layers = 0
    params.fit_params = False
    params.cache_ram_mib = 0
    # Mean pooling serves chat and embeddings from one context.
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    # Nobody else is meant to talk to it, least of all a web page.
    params.ui = False
    params.endpoint_props = False
    params.endpoint_slots = False
    params.cors_origins = ""
    params.cors_methods = ""
    params.cors_headers = ""
    params.cors_credentials = False
    return xllamacpp.Server(params)


def _die_with_parent(wanted: bool) -> None:
    """Have Linux kill us when the thread that started us ends (prctl PR_SET_PDEATHSIG, 1).

    Only while loading: llama.cpp then holds the GIL, so that nothing here could notice the end of stdin; afterwards the
    parent's thread may well end before its process does. Elsewhere an orphan finishes loading, then ends.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL if wanted else 0)


if __name__ == "__main__":
    main()
