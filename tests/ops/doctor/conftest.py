"""The healthy fleet, with its keys where its file says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ops.doctor.healthy import PROXY_KEY, Lab
from servers.tabby import ADMIN_KEY, API_KEY

from hydra_infer.hardware import nvml


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    for name, key in (("LAB_API_KEY", API_KEY), ("LAB_ADMIN_KEY", ADMIN_KEY), ("LAB_PROXY_KEY", PROXY_KEY)):
        monkeypatch.setenv(name, key)
    with Lab(tmp_path) as lab:
        monkeypatch.setattr(nvml, "gpus", lambda empty=False: lab.empty_cards if empty else lab.cards)
        yield lab
