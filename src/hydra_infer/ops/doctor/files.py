"""Other programs' configuration files: TabbyAPI's config.yml with its keys' file, and LiteLLM's config.yaml."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...configs import tabby
from ...configs.disk import read
from ...configs.document import line_of, parse
from ...configs.finding import Finding as Lint
from ...configs.litellm import LiteLLMConfig, read_litellm
from ...configs.tabby_keys import KEYS
from ...errors import ConfigError, HydraError
from .report import Finding, Severity, unseen

__all__ = ["check_litellm_file", "check_tabby_file", "check_tokens", "told"]

_REFERENCE = re.compile(r"os\.environ/(\w+)")
_DEFAULT_PORT = KEYS["network.port"].default
_SERIOUS = ("dangerous", "wrong")
# The key of LiteLLM's own documentation.
_WELL_KNOWN = ("sk-1234",)


def check_tabby_file(
    path: Path, version: str | None = None, *, port: int | None = None, per_model: bool = False
) -> Iterator[Finding]:
    """The linter's findings; whether it listens on the `port` that the fleet says; whether others may read its keys.

    `version` is the date of the TabbyAPI commit that reads it; `per_model`: it is a tabby_config.yml in a model's folder.
    """
    try:
        text = read(path)
    except ConfigError as error:
        yield Finding(
            "error",
            str(path),
            error.message,
            "the server starts without it, or not at all",
            "correct the path, or its permissions",
        )
        return
    for one in tabby.lint(text, version=version, per_model=per_model):
        yield told(one, path, "error" if one.kind in _SERIOUS else "warning")
    network = _network(text)
    said = network.get("port", _DEFAULT_PORT)
    if port is not None and said != port:
        yield Finding(
            "error",
            str(path),
            f"network.port is {said}, and the fleet file asks port {port}",
            "the server that is asked is not this one",
            f"network:\n          port: {port}, or the other port in url: of the fleet file",
        )
    if not per_model and network.get("disable_auth") is not True:
        yield from check_tokens(path.with_name("api_tokens.yml"))


def told(one: Lint, path: Path, severity: Severity) -> Finding:
    """What the linter found, as a finding of ours."""
    without = "correct it" if one.kind == "wrong" else "take the line out"
    mend = f"write\n{_indented(one.instead)}" if one.instead else without
    return Finding(severity, f"{path}:{one.line}", f"{one.key}: {one.kind}" if one.key else one.kind, one.why, mend)


def _network(text: str) -> dict[str, Any]:
    """Where and how it listens; nothing where the file is not usable, and TabbyAPI goes by its defaults."""
    try:
        root = parse(text, "the file")
    except ConfigError:
        return {}  # the linter has said why
    network = root.get("network") if isinstance(root, dict) else None
    return network if isinstance(network, dict) else {}


def _world_readable(path: Path) -> bool:
    # Windows has no such bits, and reports them set.
    return os.name == "posix" and path.is_file() and bool(path.stat().st_mode & stat.S_IROTH)


def check_tokens(path: Path) -> Iterator[Finding]:
    """TabbyAPI's api_tokens.yml, which it makes itself where there is none: whether it can be used, and who can read it."""
    if not path.is_file():
        return
    if _world_readable(path):
        yield Finding(
            "warning",
            str(path),
            "everybody on this machine can read it",
            "it holds TabbyAPI's keys, the admin's among them",
            f"chmod 600 {path}",
        )
    try:
        root = parse(read(path), str(path))
    except ConfigError as error:
        if isinstance(error.__cause__, PermissionError):
            yield unseen(str(path), "TabbyAPI's keys: only its user may read them")
            return
        root = None
    keys = root if isinstance(root, dict) else {}
    if not isinstance(keys.get("api_key"), str | list) or not isinstance(keys.get("admin_key"), str):
        yield Finding(
            "error",
            str(path),
            "it is not a table with api_key and admin_key",
            "TabbyAPI does not start with it",
            "api_key: … and admin_key: …, or move it away: TabbyAPI then makes a new one",
        )


def check_litellm_file(path: Path, environment: Mapping[str, str]) -> Iterator[Finding]:
    """What a LiteLLM proxy's configuration says that does not do what it seems to."""
    try:
        text = read(path)
        # The proxy has another environment than we: what the file names there is taken to be there.
        config = read_litellm(text, str(path), {**dict.fromkeys(_REFERENCE.findall(text), "given"), **environment})
    except HydraError as error:
        yield Finding("error", str(path), str(error), "LiteLLM refuses it, or serves nothing from it", "correct that line")
        return
    root = parse(text, str(path))
    for row in root["model_list"]:
        yield from _deployment(row, path)
    yield from _retries(config, path)
    yield from _master_key(root.get("general_settings"), path)
    yield from _literals(root, path)
    verbose = root.get("litellm_settings") or {}
    if "set_verbose" in verbose:
        yield Finding(
            "warning",
            f"{path}:{line_of(verbose, 'set_verbose')}",
            "set_verbose is given up",
            "it says what LITELLM_LOG says by now, and prints prompts and keys where it is true",
            "LITELLM_LOG=INFO in the proxy's environment, and this line out",
        )


def _deployment(row: dict[str, Any], path: Path) -> Iterator[Finding]:
    params, info = row["litellm_params"], row.get("model_info") or {}
    where = f"{path}:{line_of(params, 'model')}"
    if str(params.get("model")).startswith("ollama/") and info.get("mode") != "embedding":
        yield Finding(
            "warning",
            where,
            f"{row['model_name']} is asked by ollama/, Ollama's old /api/generate",
            "tools are lost in streams, and an answer that was cut off reads as a whole one",
            "write ollama_chat/ in its place (ollama/ is for embeddings, with model_info: mode: embedding)",
        )
    if info.get("max_tokens") and not info.get("max_input_tokens"):
        yield Finding(
            "warning",
            where,
            f"{row['model_name']} has max_tokens and no max_input_tokens in model_info",
            "LiteLLM takes max_tokens for the answer's length, and checks no prompt against the context",
            f"max_input_tokens: {info['max_tokens']}, and router_settings: enable_pre_call_checks: true",
        )


def _retries(config: LiteLLMConfig, path: Path) -> Iterator[Finding]:
    groups = [one.group for one in config.deployments]
    lonely = sorted({name for name in groups if groups.count(name) == 1 and name not in config.fallbacks})
    if lonely and config.settings.get("retries"):
        yield Finding(
            "warning",
            str(path),
            f"num_retries is {config.settings['retries']}, and there is one server and no fallback for {', '.join(lonely)}",
            "a retry asks the server that just failed again, after a pause, and nothing else ever answers",
            "router_settings: fallbacks: names who answers instead",
        )


def _master_key(general: Any, path: Path) -> Iterator[Finding]:
    """Where the file leaves it out, the proxy looks into its environment, which is not ours to see."""
    if isinstance(general, dict) and "master_key" in general and general["master_key"] in (None, "", *_WELL_KNOWN):
        yield Finding(
            "error",
            f"{path}:{line_of(general, 'master_key')}",
            "its master_key is empty, or one that everybody knows",
            "LiteLLM does not start with it; older ones let everybody in",
            "master_key: os.environ/LITELLM_MASTER_KEY, and a long random one there",
        )


def _literals(root: Any, path: Path) -> Iterator[Finding]:
    general = root.get("general_settings")
    rows = [(row["litellm_params"], "api_key") for row in root["model_list"]]
    rows += [(general, "master_key")] if isinstance(general, dict) else []
    # "none" is how a server without a key is written.
    found = [(table, key) for table, key in rows if _is_literal(table.get(key))]
    if found and _world_readable(path):
        table, key = found[0]
        yield Finding(
            "warning",
            f"{path}:{line_of(table, key)}",
            f"a key stands in it ({key}), and everybody on this machine can read it",
            "whoever logs in here has the key",
            f"chmod 600 {path}, or os.environ/NAME in its place",
        )


def _is_literal(key: Any) -> bool:
    return isinstance(key, str) and key not in ("", "none") and not key.startswith("os.environ/")


def _indented(text: str) -> str:
    return "\n".join(f"          {line}" for line in text.splitlines())
