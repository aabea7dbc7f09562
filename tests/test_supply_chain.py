"""Whoever installs this gets little, and what tests and builds install is what was looked at: docs/supply-chain.md."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest
from supply.pins import KNOWN_BAD, bad, installed, leftovers, lines, name_of, pin_of

from hydra_infer.configs.compose import LiteLLMService, compose
from hydra_infer.errors import ConfigError

HOME = Path(__file__).parents[1]
PROJECT = tomllib.loads((HOME / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FILES = sorted(
    path for folder in ("tests", "benchmarks", "docs", "notebooks") for path in (HOME / folder).rglob("requirements*.txt")
)
# What users may choose the release of; what we choose it of is in the extras "test" and "dev".
OURS = ("test", "dev")


def requirements() -> list[tuple[str, str]]:
    """(where, what) of everything that a test, a check or a build of this project installs."""
    found = [(str(path.relative_to(HOME)), line) for path in FILES for line in lines(path.read_text(encoding="utf-8"))]
    for extra in OURS:
        found += [(f"[{extra}]", line) for line in PROJECT["optional-dependencies"][extra] if not line.startswith("hydra-infer[")]
    makefile = (HOME / "Makefile").read_text(encoding="utf-8")
    return [*found, *(("Makefile", one) for one in re.findall(r"[\w.-]+[=~<>]=[\w.]+", makefile))]


def test_everything_that_we_install_is_pinned() -> None:
    assert len(FILES) >= 12
    assert [(where, line) for where, line in requirements() if pin_of(line) is None] == []


def test_nothing_that_we_install_or_have_installed_is_known_to_be_malicious() -> None:
    assert bad(pin for _, line in requirements() if (pin := pin_of(line))) == []
    assert bad(installed().items()) == []
    assert leftovers(sys.path) == []


def test_the_core_is_four_packages_and_none_of_those_that_were_compromised() -> None:
    core = {name_of(re.split(r"[<>=!~\[; ]", line)[0]) for line in PROJECT["dependencies"]}
    assert core == {"httpx", "pydantic", "tenacity", "nvidia-ml-py"}
    named = {name_of(re.split(r"[<>=!~\[; ]", line)[0]) for extra in PROJECT["optional-dependencies"].values() for line in extra}
    assert not named & {name_of(row["package"]) for row in KNOWN_BAD}


def test_the_check_itself_finds_what_it_is_for(tmp_path: Path) -> None:
    assert bad([("litellm", "1.82.8"), ("litellm", "1.106.2")]) == [f"litellm 1.82.8: {KNOWN_BAD[0]['source']}"]
    for line in ("a>=1", "a", "a==1.*", "a~=1.0", "a @ https://example.org/a.whl", "-e .", "git+https://example.org/a"):
        assert pin_of(line) is None, line
    assert pin_of('A_b[c]==1.0; python_version > "3"') == ("a-b", "1.0")
    (tmp_path / "litellm_init.pth").touch()
    assert leftovers([str(tmp_path)]) == [str(tmp_path / "litellm_init.pth")]


@pytest.mark.parametrize("version", [version for row in KNOWN_BAD if row["package"] == "litellm" for version in row["versions"]])
def test_what_we_write_for_docker_knows_the_same_releases(version: str) -> None:
    with pytest.raises(ConfigError, match="malicious"):
        compose(litellm=LiteLLMService(image=f"ghcr.io/berriai/litellm:v{version}"))


def test_the_page_tells_of_each() -> None:
    page = (HOME / "docs" / "supply-chain.md").read_text(encoding="utf-8")
    for row in KNOWN_BAD:
        assert row["source"].partition(";")[0] in page
        for version in row["versions"]:
            assert version in page
    for name in PROJECT["dependencies"]:
        assert f"`{re.split('[<>=]', name)[0]}`" in page
