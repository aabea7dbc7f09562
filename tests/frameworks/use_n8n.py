"""n8n's Python Code node: a Router in a node's own code, under the rules that n8n's task runner lays on it."""

from __future__ import annotations

from n8n import sandbox

from hydra_infer import Router

NODE = """
import hydra_infer as hydra

with hydra.Router([hydra.Backend.ollama(item["json"]["url"], {"llama": "llama3.1:8b"}) for item in _items[:1]]) as router:
    return hydra.to_n8n([router.chat("llama", item["json"]["text"]) for item in _items])
"""


def test_a_node_asks_a_router_of_its_own(router: Router) -> None:
    url = router.status()["ollama"].url
    ran = sandbox.run(NODE, [{"json": {"text": text, "url": url}} for text in ("one two", "three")])
    assert [item["json"]["text"] for item in ran.items] == ["one two", "three"]
