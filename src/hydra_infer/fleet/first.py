"""A first hydra.yaml, written from what answers at some addresses."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from ..configs.document import flow
from ..router import Router
from ..routing.status import BackendStatus
from ..wire.ollama import is_cloud
from .address import PORTS, host_of, is_loopback

__all__ = ["first_file"]

_HEAD = """\
# The machines, the servers on them in the order in which they are asked, and their models. What else may stand here:
# hydra-infer init --schema. A host with cards, {cards: [RTX 5090, RTX 4090]} in PCI order, has its models planned.
"""


def first_file(urls: Sequence[str], key_env: str | None = None, admin_key_env: str | None = None) -> str:
    """The text of a hydra.yaml for these addresses; which kind of server each is, and what it serves, is asked there.

    One that does not answer is written all the same, with the reason beside it, and its kind guessed by its port. `key_env` names
    the environment variable that holds the servers' key, `admin_key_env` the one that holds the admin's of TabbyAPI. Raises
    ConfigError for what is no address.
    """
    key = os.environ.get(key_env) if key_env else None
    with Router.from_urls(urls, api_keys=dict.fromkeys(urls, key) if key else None) as router:
        rows = [_guessed(row) for row in router.status()]
    names = _names(rows)
    hosts = dict.fromkeys(_host(row) for row in rows)
    lines = [_HEAD + "hosts:"]
    lines += [f"  {flow(host)}: {'{cards: this machine}' if host == 'here' else '{}'}" for host in hosts]
    lines.append("servers:")
    for name, row in zip(names, rows, strict=True):
        lines += _server(name, row, key_env, admin_key_env)
    return "\n".join(lines) + "\n"


def _guessed(row: BackendStatus) -> BackendStatus:
    """One that does not answer does not say what it is: then its port does, where that is the usual one of a kind."""
    if row.reachable:
        return row
    return replace(row, kind=next((kind for kind, port in PORTS.items() if urlsplit(row.url).port == port), row.kind))


def _host(row: BackendStatus) -> str:
    return "here" if is_loopback(row.url) else host_of(row.url) or row.url


def _names(rows: Sequence[BackendStatus]) -> list[str]:
    """The kind where there is one of it, else the kind with its machine, else with its address."""
    kinds = Counter(row.kind for row in rows)
    pairs = Counter((row.kind, _host(row)) for row in rows)
    seen: Counter[str] = Counter()
    found = []
    for row in rows:
        short = row.kind if kinds[row.kind] == 1 else f"{row.kind}-{_host(row)}"
        name = short if pairs[row.kind, _host(row)] == 1 else f"{row.kind}-{urlsplit(row.url).netloc.replace(':', '-')}"
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return found


def _server(name: str, row: BackendStatus, key_env: str | None, admin_key_env: str | None) -> Iterator[str]:
    yield f"  {flow(name)}:"
    if not row.reachable or row.error:
        yield f"    # when this was written: {' '.join(row.error.split())}"
    yield f"    kind: {row.kind}" + ("" if row.reachable else "  # a guess: tabby, ollama, litellm or openai")
    yield f"    url: {flow(row.url)}"
    yield f"    host: {flow(_host(row))}"
    if key_env and row.kind != "ollama":
        yield f"    api_key: {{env: {key_env}}}"
    if row.kind == "tabby":
        said = f"admin_key: {{env: {admin_key_env}}}"
        yield f"    {said}" if admin_key_env else "    # admin_key: {env: VARIABLE} lets models be loaded, unloaded and switched"
    models = [model for model in row.models or () if not (row.kind == "ollama" and is_cloud(model))]
    if models and row.kind == "tabby":
        yield "    models: # what is loaded now; others in its folder may stand here too"
    elif models:
        yield "    models:"
    if models:
        yield from (f"      {flow(model)}: {{}}" for model in models)
    else:
        yield "    # models: left out, it is asked for its list when it is used"
