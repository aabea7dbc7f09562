"""Finding out what kind of server answers at an address."""

from __future__ import annotations

import pytest
from servers.fault import FaultServer, plain

from hydra_infer import ConfigError, Router
from hydra_infer.transport.detect import detect

pytestmark = pytest.mark.usefixtures("no_leaks")

NOT_FOUND = plain({"detail": "Not Found"}, 404)


def test_each_kind_by_its_own_path_and_no_key_is_shown_before() -> None:
    tabby = FaultServer(plain({"version": 0.1, "software": {"name": "TabbyAPI"}}))
    ollama = FaultServer(NOT_FOUND, plain({"version": "0.32.1"}))
    litellm = FaultServer(NOT_FOUND, NOT_FOUND, plain(b'"I\'m alive!"'))
    other = FaultServer(NOT_FOUND)
    page = FaultServer(plain(b'<html>TabbyAPI alive "version"</html>', content_type="text/html"))
    servers = [tabby, ollama, litellm, other, page]
    rows = detect([server.url for server in servers], {tabby.url: "sk-secret"})
    for server in servers:
        server.close()
    assert [row.kind for row in rows] == ["tabby", "ollama", "litellm", "openai", "openai"]
    assert rows[0].api_key == "sk-secret"
    assert all("authorization" not in headers for server in servers for _, _, headers, _ in server.requests)


def test_dead_addresses_are_kept_by_their_usual_port() -> None:
    rows = detect(["dead.invalid:5000", "dead.invalid:11434", "dead.invalid:4000", "dead.invalid:9"])
    assert [row.kind for row in rows] == ["tabby", "ollama", "litellm", "openai"]


def test_a_router_from_addresses_survives_a_dead_one() -> None:
    listed = plain({"data": [{"id": "m"}]})
    answer = plain({"choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}]})
    with FaultServer(NOT_FOUND, NOT_FOUND, NOT_FOUND, listed, answer) as server:
        router = Router.from_urls(["127.0.0.1:9", server.url], api_keys={server.url: "k"}, strategy="shuffle")
        assert router.chat("m", "hi").text == "hi"
        assert server.requests[-1][2]["authorization"] == "Bearer k"
        router.close()


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(ConfigError, match="ftp"):
        detect(["ftp://x"])
    with pytest.raises(ConfigError, match="list of Backends"):
        Router.from_urls([])
