"""The live page of `serve` in headless Chromium: make test-browser. With HYDRA_PICTURE=FILE it also keeps a picture."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from servers.fault import FaultServer, chunked, hello, plain, sse, word
from servers.listening import listening
from servers.tabby import API_KEY, TabbyServer

from hydra_infer import Backend, Router
from hydra_infer.live import Live
from hydra_infer.serve import App

# As root, as in a container, Chromium runs only without its sandbox; the rest keeps it from calling home.
FLAGS = "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync --no-first-run"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ["CHROMIUM"], args=FLAGS.split())
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page, whose script must not fail and which must not want what its own policy forbids."""
    page = browser.new_page(viewport={"width": 1000, "height": 600}, locale="en-GB")
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if "Content Security Policy" in message.text else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    page.close()
    assert complaints == []


@contextlib.contextmanager
def shown(*backends: Backend, **options: Any) -> Iterator[tuple[str, Router]]:
    with Router(list(backends), retries=0) as router:
        app = App(router, **options)
        app.live = Live(router._board, tick=0.05, look=0.2)
        with listening(app) as (url, server):
            app.live.closing = lambda: server.should_exit
            yield url, router


def paced(body: bytes) -> list[Any]:
    """A healthy server that says 50 tokens a second."""
    if not body:
        return plain({"data": [{"id": "llama-8b"}]})
    usage = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 6, "total_tokens": 15}}
    pauses = [piece for text in "one two three four five six".split() for piece in (0.02, word(text))]
    return chunked(*pauses[1:], word("", "stop"), sse(usage), sse(b"[DONE]"))


def test_servers_models_and_a_failover_appear_while_one_looks(page: Page) -> None:
    with TabbyServer(["Llama-70B"], "Llama-70B") as tabby, FaultServer(plain({}, 500)) as bad, FaultServer(paced) as good:
        backends = [
            Backend.openai(bad.url, models=["llama-8b"], name="old-box"),
            Backend.openai(good.url, models=["llama-8b", "qwen-14b"], name="new-box", max_parallel=4),
            Backend.tabby(tabby.url, {"llama-70b": "Llama-70B"}, api_key=API_KEY, name="tabby"),
            Backend.openai("http://127.0.0.1:9", models=["spare"], name="switched-off"),
        ]
        with shown(*backends) as (url, router):
            elsewhere: list[str] = []
            page.on("request", lambda request: None if request.url.startswith((url, "data:")) else elsewhere.append(request.url))
            page.goto(url)
            expect(page.locator("#state")).to_have_text("live")
            expect(page.locator("#backends tr")).to_have_count(4)
            expect(page.locator("#backends tr", has_text="tabby")).to_contain_text("Llama-70B")
            expect(page.locator("#troubles")).to_have_text("none so far")

            for _ in range(3):
                router.chat("llama-8b", "hi")
                router.chat("llama-70b", "[[n:8]][[delay:0.05]]")
            expect(page.locator("#answers")).to_have_text("6")
            expect(page.locator("#backends tr", has_text="old-box")).to_contain_text("resting")
            expect(page.locator("#troubles li").first).to_contain_text("new-box: answered for llama-8b")
            expect(page.locator("#troubles li")).to_have_count(3)
            with router.stream("llama-70b", "[[n:99]][[delay:0.05]]") as stream:
                next(iter(stream))
                expect(page.locator("#in_flight")).to_have_text("1")
                if picture := os.environ.get("HYDRA_PICTURE"):
                    page.screenshot(path=picture, full_page=True)
            expect(page.locator("#in_flight")).to_have_text("0")
            assert float(page.locator("#rate").inner_text()) > 0
            bars = re.findall(r"v-([\d.]+)h", page.locator("#bars").get_attribute("d") or "")
            assert max(map(float, bars)) == 10  # the busiest second fills the picture
            # A reason that both columns would give stands once.
            assert page.locator("#backends tr", has_text="switched-off").inner_text().count("connection refused") == 1
            assert elsewhere == []


def test_what_a_server_says_is_shown_as_text(page: Page) -> None:
    evil = '<img src="x" onerror="document.title=\'taken\'"><script>document.title="taken"</script>'
    with FaultServer(plain({"error": {"message": evil}}, 500)) as bad, shown(Backend.openai(bad.url, models=[evil])) as (url, _):
        page.goto(url)
        expect(page.locator("#backends")).to_contain_text("<img src=")
        assert page.locator("#backends img, #backends script").count() == 0
        assert page.title() == "hydra_infer"


def test_with_a_key_the_page_asks_for_it_and_keeps_it_out_of_addresses(page: Page) -> None:
    with FaultServer(hello("a")) as server, shown(Backend.openai(server.url, models=["m"]), api_key="ours") as (url, _):
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        for key, says in (("wrong", "this key is wrong"), ("ours", "live")):
            expect(page.locator("#door")).to_be_visible()
            page.fill("#key", key)
            page.press("#key", "Enter")
            expect(page.locator("#state")).to_have_text(says)
        expect(page.locator("#door")).to_be_hidden()
        expect(page.locator("#backends tr")).to_have_count(1)
        assert not any("ours" in address for address in (*asked, page.url))
        assert page.evaluate("[document.cookie, localStorage.length, sessionStorage.length]") == ["", 0, 0]


def test_a_web_client_from_the_named_origin_may_ask_with_its_key(page: Page) -> None:
    """As Open WebUI's direct connections do: fetch from its own page, which the browser asks leave for first."""
    ask = """async ([base, key]) => {
        const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
        const models = (await (await fetch(`${base}/v1/models`, { headers })).json()).data.map(row => row.id);
        const body = JSON.stringify({ model: models[0], messages: [{ role: "user", content: "hi" }], stream: true });
        const text = await (await fetch(`${base}/v1/chat/completions`, { method: "POST", headers, body })).text();
        const pieces = text.split("\\n\\n").filter(event => event.startsWith("data: {")).map(event => JSON.parse(event.slice(6)));
        return [models, pieces.map(piece => piece.choices[0]?.delta.content ?? "").join("")];
    }"""
    home = plain(b"<!doctype html><link rel=icon href=data:,>", content_type="text/html")
    with FaultServer(hello("a")) as server, FaultServer(home) as client:
        backend = Backend.openai(server.url, models=["m"])
        with shown(backend, api_key="ours", cors=client.url) as (url, _):
            page.goto(client.url)
            assert page.evaluate(ask, [url, "ours"]) == [["m"], "hello from a"]


def test_the_page_says_when_its_server_is_gone(page: Page) -> None:
    with FaultServer(hello("a")) as server, shown(Backend.openai(server.url, models=["m"])) as (url, _):
        page.goto(url)
        expect(page.locator("#state")).to_have_text("live")
    expect(page.locator("#state")).to_contain_text("not connected")
