"""A backend's key goes to its own origin and nowhere else: no proxy of the environment, no redirect, no word that is printed."""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from servers.fault import RESET, FaultServer, hello, plain
from transport.faces import both, chat

from hydra_infer import Backend, HydraError, Router
from hydra_infer.ops.asking import ask
from hydra_infer.ops.bench import compare
from hydra_infer.ops.doctor.doctor import doctor
from hydra_infer.ops.hub import fetch

pytestmark = pytest.mark.usefixtures("no_leaks")

KEY, ADMIN = "sk-planted-0123456789", "sk-admin-9876543210"


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    """A proxy that the whole environment names, for everything."""
    with FaultServer(plain({"proxy": True}, 502)) as server:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, server.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield server


@both
def test_a_proxy_of_the_environment_sees_no_call(face: str, proxy: FaultServer) -> None:
    with FaultServer(hello("a")) as server:
        router = Router([Backend.openai(server.url, api_key=KEY)])
        assert chat(face, router).text == "hello from a"  # the look at its models, and the call
        router.close()
        assert {headers["authorization"] for *_, headers, _ in server.requests} == {f"Bearer {KEY}"}
    assert proxy.connections == 0


def test_nor_do_benches_doctors_and_looks(proxy: FaultServer, tmp_path: Path) -> None:
    with FaultServer(hello("a")) as server:
        Router.from_urls([server.url], api_keys={server.url: KEY}).close()
        backend = Backend.openai(server.url, api_key=KEY, models=["m"])
        assert ask(backend, "/v1/models", headers=backend.headers()).status == 200
        compare(backend, backend, kinds="chat", parallel=1, repetitions=1, quality=False, progress=False)
        path = tmp_path / "hydra.yaml"
        path.write_text(f"servers: {{a: {{kind: openai, url: '{server.url}', api_key: {{literal: {KEY}}}, models: {{m: m}}}}}}\n")
        path.chmod(0o600)
        report = doctor(path)
        assert KEY not in str(report) + repr(report.to_dict())
        assert server.requests
    assert proxy.connections == 0


def test_nor_does_it_see_a_hub_token_in_the_clear(proxy: FaultServer, tmp_path: Path) -> None:
    with FaultServer(plain(b"[]")) as hub:
        fetch("o/n", tmp_path, token=KEY, address=hub.url)
        assert hub.requests[0][2]["authorization"] == f"Bearer {KEY}"
    assert proxy.connections == 0


def test_a_hub_over_tls_is_reached_by_the_proxy_which_sees_a_tunnel_alone(proxy: FaultServer, tmp_path: Path) -> None:
    with pytest.raises(HydraError):
        fetch("o/n", tmp_path, token=KEY, address="https://hub.invalid")
    (request,) = proxy.requests
    assert request[:2] == ("CONNECT", "hub.invalid:443")
    assert KEY not in repr(request)


@both
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_origin_is_not_followed(face: str, status: int) -> None:
    with FaultServer(hello("other")) as other, FaultServer(hello("good")) as good:
        for location in (other.url, f"//127.0.0.1:{other.port}/v1/chat/completions", f"http://u:p@127.0.0.1:{other.port}/"):
            with FaultServer(plain(b"", status, location=location)) as bad:
                rows = [Backend.openai(bad.url, models=["m"], api_key=KEY), Backend.openai(good.url, models=["m"])]
                router = Router(rows)
                reply = chat(face, router)
                assert reply.text == "hello from good"
                assert "it redirects to another address" in reply.attempts[0].message
                router.close()
        assert other.connections == 0
        assert {headers.get("authorization") for *_, headers, _ in good.requests} == {None}


@both
def test_a_redirect_within_the_origin_keeps_the_key_the_method_and_the_body(face: str) -> None:
    with FaultServer(plain(b"", 307, location="/elsewhere?x=1"), hello("a")) as server:
        router = Router([Backend.openai(server.url, models=["m"], api_key=KEY)])
        assert chat(face, router).text == "hello from a"
        (_, first, _, body), (method, second, headers, again) = server.requests
        assert (first, second, method, again) == ("/v1/chat/completions", "/elsewhere?x=1", "POST", body)
        assert headers["authorization"] == f"Bearer {KEY}"
        router.close()


@both
def test_redirects_without_end_end(face: str) -> None:
    with FaultServer(plain(b"", 307, location="/again")) as server:
        router = Router([Backend.openai(server.url, models=["m"], api_key=KEY)], retries=0)
        with pytest.raises(HydraError, match="too many redirects"):
            chat(face, router)
        assert len(server.requests) == 4
        router.close()


FAILING: dict[str, Any] = {
    "reset": [RESET],
    "401 that repeats the key": plain({"error": {"message": f"Incorrect API key provided: {KEY}"}}, 401),
    "a page that repeats the key": plain(f"<title>{KEY}</title>".encode(), 500, "text/html"),
    "an event that repeats the key": plain(f"data: {{{KEY}\n\n".encode(), content_type="text/event-stream"),
    "elsewhere": plain(b"", 307, location=f"http://other.invalid/?key={KEY}"),
}


@both
@pytest.mark.parametrize("fault", FAILING)
def test_no_key_is_in_errors_logs_and_reprs(face: str, fault: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with FaultServer(FAILING[fault]) as server:
        row = Backend.tabby(server.url, {"m": "x"}, api_key=KEY, admin_key=ADMIN)
        router = Router([row], retries=0)
        with pytest.raises(HydraError) as caught:
            chat(face, router)
        error = caught.value
        told = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error)) + repr(pickle.dumps(error))
        told += repr(row) + repr(router) + str(router.explain("m")) + str(router.status()) + repr(router.status().to_dict())
        told += str(router.usage())
        told += "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("hydra_infer"))
        assert KEY not in told
        assert ADMIN not in told
        router.close()


def test_the_client_for_other_sdks_reads_no_proxy_and_passes_no_key_on(proxy: FaultServer) -> None:
    with FaultServer(hello("a")) as server, Router([Backend.openai(server.url, models=["m"], api_key=KEY)]) as router:
        with router.client() as client:
            theirs = {"authorization": "Bearer theirs", "cookie": "a=b", "x-api-key": "theirs"}
            answer = client.post("/chat/completions", json={"model": "m", "messages": []}, headers=theirs)
        assert isinstance(answer, httpx.Response)
        assert answer.status_code == 200
        sent = server.requests[-1][2]
        assert sent["authorization"] == f"Bearer {KEY}"
        assert not {"cookie", "x-api-key"} & sent.keys()
        assert KEY not in repr(answer.headers)
    assert proxy.connections == 0
