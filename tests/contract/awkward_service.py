"""A service in which every word wants care: spaces, quotes, backslashes, and signs that mean something to systemd or to Nix."""

from __future__ import annotations

from hydra_infer.configs.services import TabbyService

__all__ = ["AWKWARD"]

AWKWARD = TabbyService(
    name="tabby-big",
    folder="/opt/tabby API 100%",
    python="/opt/tabby API 100%/venv/bin/python",
    user="typhon",
    config="/etc/hydra/big.yml",
    prestart=("/opt/hydra infer/hydra-infer", "prestart", "$HOME", "${HOME}", "50%", 'say "hi"; \\'),
    mounts=("/mnt/models", "/mnt/more models"),
    cards=("0", "1"),
    environment={"A": "x y", "B": "%n \\ ' ''"},
)
