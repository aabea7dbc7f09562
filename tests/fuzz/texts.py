"""YAML that somebody else wrote: a fleet's file, TabbyAPI's and LiteLLM's, read, checked, and edited with comments kept."""

from __future__ import annotations

import json
import re
import warnings
from typing import Any

from fleet.good import GOOD

from hydra_infer.configs.document import nodes
from hydra_infer.configs.edit import diff, edit
from hydra_infer.configs.litellm import read_litellm
from hydra_infer.configs.secrets import masked
from hydra_infer.configs.tabby import lint
from hydra_infer.errors import HydraError
from hydra_infer.fleet.fleet import Fleet
from hydra_infer.fleet.source import Source

from .target import Target, put

__all__ = ["TARGETS"]


def _text(data: bytes) -> str | None:
    """As configs.disk.read gives it."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _refused(error: HydraError) -> None:
    assert 0 < len(str(error)) < 20_000, str(error)[:200]


def run_tabby(data: bytes) -> None:
    if (text := _text(data)) is None:
        return
    lines = len(re.findall("\r\n|[\n\r\x85\u2028\u2029]", text)) + 1  # as YAML counts them
    for per_model in (False, True):
        for finding in lint(text, per_model=per_model, version=None if per_model else "2026-03-30"):
            assert 1 <= finding.line <= lines + 1
            assert finding.why
    assert masked(text).count("\n") == text.count("\n")


def run_fleet(data: bytes) -> None:
    path = put("hydra.yaml", data)
    path.chmod(0o600)
    try:
        file = Source(path).read()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fleet = Fleet.from_file(path)
        assert fleet.servers == tuple(file.servers)
        repr(fleet)
    except HydraError as error:
        _refused(error)


def run_litellm(data: bytes) -> None:
    if (text := _text(data)) is None:
        return None
    try:
        config = read_litellm(text, "config.yaml", {"KEY": "k"})
    except HydraError as error:
        return _refused(error)
    assert config.deployments
    assert all(one.group and one.url and one.local_name and one.line >= 1 for one in config.deployments)
    assert all(isinstance(one.context, int | None) and not isinstance(one.context, bool) for one in config.deployments)
    return None


def run_edit(data: bytes) -> None:
    """The first line says what to change: ["a.b", value]. What it does not name stays, byte for byte."""
    head, _, rest = data.partition(b"\n")
    text = _text(rest)
    try:
        path, value = json.loads(head)
    except (ValueError, TypeError, RecursionError):
        path, value = "model.cache_size", 4096
    if text is None or not isinstance(path, str) or not path:
        return None
    try:
        changed = edit(text, {path: value})
    except HydraError as error:
        return _refused(error)
    start = next(
        (at for at, (old, new) in enumerate(zip(text, changed, strict=False)) if old != new), min(len(text), len(changed))
    )
    most = min(len(text), len(changed)) - start
    tail = next((at for at in range(most) if text[-1 - at] != changed[-1 - at]), most)
    gone = text[start : len(text) - tail]
    begin, end = _place(text, path.split("."))
    assert not gone or (begin <= start and len(text) - tail <= end), f"{gone!r} is gone, which is more than the value"
    diff(text, changed)
    assert edit(changed, {path: value}) == changed, "the same edit twice changes more"
    return None


def _place(text: str, path: list[str]) -> tuple[int, int]:
    """From the end of the value's key to where its node's mark ends; nothing where there is no such value."""
    node, begin = nodes(text, "the file"), 0
    for part in path:
        if node is None or isinstance(node.value, str):
            return 0, 0
        if node.value and isinstance(node.value[0], tuple):
            found = next((pair for pair in node.value if pair[0].value == part), None)
            if found is None:
                return 0, 0
            begin, node = found[0].end_mark.index, found[1]
        elif part.isdecimal() and int(part) < len(node.value):
            node = node.value[int(part)]
            begin = node.start_mark.index
        else:
            return 0, 0
    return (begin, node.end_mark.index) if node is not None else (0, 0)


TABBY = """\
# The server under the desk.
network:            # who may come in
  host: 0.0.0.0   # every address
  port: 5000
  disable_auth: false
model:
  model_dir: '/mnt/models'    # on the NAS
  model_name: "Llama-3.1-70B-EXL3-4.0bpw"
  cache_size:       # not said yet
  cache_mode: Q8    # see notes # 3
  gpu_split: [26.0, 20.0]
  autosplit_reserve:
    - 1024
    - 512
draft_model: {draft_mode: ngram}   # later
logging: &log {log_prompt: false}
"""
OLD = """\
speculative_decoding: {enabled: true, draft_model: /m/d, num_speculative_tokens: 4}
model: {cache_mode: FP17, max_seq_len: "32768", max_batch_size: 1, gpu_split_auto: yes, draft: {draft_model_name: x}}
logging: {prompt: true}
unknown: 1
"""
FLEET = GOOD.replace("    host: box\n", "    host: box\n    api_key: {env: KEY}\n")
LITELLM = """\
model_list:
  - model_name: llama-70b
    litellm_params:
      model: openai/default
      api_base: http://gpu-box:5000/v1
      api_key: os.environ/KEY
      weight: 2
    model_info: {max_input_tokens: 32768, mode: chat}
  - model_name: llama-8b
    litellm_params: {model: ollama/llama3.1:8b, num_ctx: 8192, order: 1, tags: [a]}
router_settings:
  num_retries: 1
  routing_strategy: latency-based-routing
  fallbacks: [{llama-70b: [llama-8b]}]
  model_group_alias: {gpt-4: llama-70b, gpt-3.5: {model: llama-8b, hidden: true}}
environment_variables: {A: b}
"""

SIGNS = (
    ": ",
    "- ",
    "\n",
    "\n  ",
    "# ",
    "&a ",
    "*a",
    "!!",
    "<<: ",
    "|",
    ">",
    "[",
    "]",
    "{",
    "}",
    '"',
    "'",
    "---",
    "...",
    "? ",
    "\t",
    "\r\n",
    "~",
    "0x1",
    "1e5",
    "2026-11-30",
    "!!python/name:",
)


def starts_tabby() -> list[bytes]:
    return [TABBY.encode(), OLD.encode(), b"model: {cache_size: 4096, cache_mode: 8,6, rope_alpha: auto}\nembeddings: {}\n"]


def starts_edit() -> list[bytes]:
    texts = (
        "model:\n  a: 1   # one\n  b:      # none yet\n# end\n",
        "m: {a: 1, b: [2, 3]}  # x\n",
        "l:\n  - 1\n  - a: 2\n    # in it\n",
        "a: &x {b: 'c # d'}\ne: *x\nf: |\n  # text\n",
        "# only\r\na: 1\r\n",
    )
    asked: list[tuple[str, Any]] = [("model.b", 4096), ("m.b", [1.5]), ("l.1.a", None), ("a.b", "v w"), ("n.s", True), ("l", [1])]
    return [json.dumps(change).encode() + b"\n" + text.encode() for change in asked for text in texts]


TARGETS = {
    "tabby": Target(
        run_tabby,
        starts_tabby,
        (*SIGNS, "model:", "network:", "draft_model:", "cache_mode:", "api_key: "),
        longest=2048,
    ),
    "fleet": Target(
        run_fleet,
        lambda: [FLEET.encode()],
        (*SIGNS, "servers:", "models:", "kind: ", "url: ", "hosts:", "router:"),
        longest=2048,
    ),
    "litellm": Target(
        run_litellm,
        lambda: [LITELLM.encode()],
        (*SIGNS, "model_list:", "litellm_params:", "model_name: ", "router_settings:"),
        longest=2048,
    ),
    "edit": Target(run_edit, starts_edit, (*SIGNS, '["model.cache_size", 1]'), longest=300),
}
