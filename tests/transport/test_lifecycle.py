"""router.load, unload and pull against scripted TabbyAPI and Ollama servers, by both faces."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest
import synthetic
from servers.fault import RESET, FaultServer, chunked, plain, sse
from servers.ollama import OllamaServer, Tag
from servers.tabby import ADMIN_KEY, API_KEY, Folder, TabbyServer
from transport.faces import both

from hydra_infer import (
    Backend,
    ConfigError,
    DeadlineExceeded,
    DoesNotFit,
    Fleet,
    LoadError,
    Refused,
    Router,
    UnknownModel,
    Unreachable,
)
from hydra_infer.routing.errand import Change

pytestmark = pytest.mark.usefixtures("no_leaks")

NOTHING = plain({"detail": "No models are currently loaded."}, 503)


def do(face: str, router: Router, verb: str, *args: Any, **options: Any) -> Change:
    """One of the three, by either face; the router is closed after it."""
    try:
        if face == "sync":
            done: Change = getattr(router, verb)(*args, **options)
            return done

        async def main() -> Change:
            changed: Change = await getattr(router.aio, verb)(*args, **options)
            await router.aio.close()
            return changed

        return asyncio.run(main())
    finally:
        router.close()


class Tabby(FaultServer):
    """TabbyAPI as far as loading goes: one model at a time, the old one gone before the new one is read."""

    def __init__(self, loaded: dict[str, Any] | None = None, *, broken: dict[str, str] | None = None, slow: float = 0.0) -> None:
        self.loaded, self.broken, self.slow = loaded, broken or {}, slow
        super().__init__(self._answer)

    def _answer(self, body: bytes) -> Any:
        _, path, headers, _ = self.requests[-1]
        if path == "/v1/models":
            return plain({"data": [{"id": self.loaded["id"]}] if self.loaded else []})
        if path == "/v1/model":
            return plain(self.loaded) if self.loaded else NOTHING
        if headers.get("authorization") != "Bearer admin":
            return plain({"detail": "Invalid admin key"}, 401)
        if path == "/v1/model/unload":
            self.loaded = None
            return plain(b"null")
        return self._load(json.loads(body))

    def _load(self, asked: dict[str, Any]) -> Any:
        name = asked["model_name"]
        if name == "nowhere":
            return plain({"detail": "Could not find the model path for load. Check model name or config.yml?"}, 400)
        self.loaded = None
        events: list[Any] = [self.slow] if self.slow else []
        events += [sse({"model_type": "draft", "module": 1, "modules": 1, "status": word}) for word in ("processing", "finished")]
        events += [sse({"model_type": "model", "module": n, "modules": 4, "status": "processing"}) for n in (1, 2, 3, 4)]
        if name in self.broken:
            return chunked(*events[:4], sse({"error": {"message": self.broken[name], "trace": None}}))
        parameters = {key: asked.get(key) for key in ("max_seq_len", "cache_size", "cache_mode", "chunk_size")}
        self.loaded = {"id": name, "parameters": {"max_seq_len": 4096, **{k: v for k, v in parameters.items() if v}}}
        return chunked(*events, sse({"model_type": "model", "module": 4, "modules": 4, "status": "finished"}))

    def posted(self) -> list[tuple[str, Any]]:
        return [(path, json.loads(body) if body else None) for method, path, _, body in self.requests if method == "POST"]


def tabby(server: FaultServer, models: Any = None, **options: Any) -> Backend:
    return Backend.tabby(server.url, models or {"m": "New", "old": "Old"}, admin_key="admin", name="gpu-box", **options)


# ---- TabbyAPI ------------------------------------------------------------------------------------------------


@both
def test_tabbyapi_loads_and_tells_how_far_it_is(face: str) -> None:
    told: list[tuple[float, str]] = []
    with Tabby() as server:
        done = do(face, Router([tabby(server)]), "load", "m", progress=lambda fraction, message: told.append((fraction, message)))
    assert (done.changed, done.backend, done.local_name, done.context, done.replaced) == (True, "gpu-box", "New", 4096, ())
    assert done.planned == "not planned: its Backend has no gpus= and no model_dir="
    assert server.posted() == [("/v1/model/load", {"model_name": "New"})]
    assert told[0] == (0.0, "gpu-box: draft: module 1 of 1")  # a draft's end is not the end
    assert told[-1] == (1.0, "gpu-box: model: module 4 of 4")
    assert [fraction for fraction, _ in told] == sorted(fraction for fraction, _ in told)


@both
def test_what_is_loaded_so_already_is_left_alone(face: str) -> None:
    with Tabby({"id": "New", "parameters": {"max_seq_len": 8192, "cache_mode": "8,8"}}) as server:
        done = do(face, Router([tabby(server, context=4096)]), "load", "m")
        assert (done.changed, done.context) == (False, 8192)
        assert not do(face, Router([tabby(server)]), "load", "m", context="8k", cache="q8").changed
    assert server.posted() == []


@both
def test_other_settings_for_a_loaded_model_need_an_unload_first(face: str) -> None:
    with Tabby({"id": "New", "parameters": {"max_seq_len": 8192}}) as server:
        done = do(face, Router([tabby(server)]), "load", "m", context=16384, cache="q6")
    assert (done.changed, done.context) == (True, 16384)
    settings = {"max_seq_len": 16384, "cache_size": 18432, "chunk_size": 2048, "cache_mode": "Q6"}
    assert server.posted() == [("/v1/model/unload", None), ("/v1/model/load", {"model_name": "New", **settings})]


@both
def test_the_old_model_is_put_back_when_the_new_one_fails(face: str) -> None:
    old = {"id": "Old", "parameters": {"max_seq_len": 4096, "cache_size": 8192, "cache_mode": "6,6", "chunk_size": 1024}}
    with Tabby(old, broken={"New": "Insufficient VRAM in split for model and cache"}) as server:
        with pytest.raises(LoadError, match=r"gpu-box did not load 'New': Insufficient VRAM.*; 'Old' was put back") as failed:
            do(face, Router([tabby(server)]), "load", "m")
        assert failed.value.backend == "gpu-box"  # type: ignore[attr-defined]
        back = {"max_seq_len": 4096, "cache_size": 8192, "cache_mode": "6,6", "chunk_size": 1024}
        assert server.posted()[1:] == [("/v1/model/load", {"model_name": "Old", **back})]
        assert server.loaded is not None
        assert server.loaded["id"] == "Old"


@both
def test_what_this_router_loaded_is_put_back_as_this_router_loaded_it(face: str) -> None:
    with Tabby(broken={"New": "no"}) as server:
        router = Router([tabby(server)])
        router.load("old", context=2048)
        with pytest.raises(LoadError, match="'Old' was put back"):
            do(face, router, "load", "m")
        assert server.posted()[2] == server.posted()[0]


@both
def test_a_server_that_dies_in_a_load_keeps_the_first_reason(face: str) -> None:
    failed = chunked(sse({"error": {"message": "Insufficient VRAM", "trace": None}}))
    with (
        FaultServer(plain({"id": "Old"}), failed, [RESET]) as server,
        pytest.raises(LoadError, match="Insufficient VRAM; what it has loaded now is not known"),
    ):
        do(face, Router([tabby(server)]), "load", "m")


@both
def test_an_old_model_that_cannot_be_put_back_is_said(face: str) -> None:
    with (
        Tabby({"id": "Old", "parameters": {}}, broken={"New": "no room", "Old": "none either"}) as server,
        pytest.raises(LoadError, match="no room; 'Old', loaded before, could not be put back: none either"),
    ):
        do(face, Router([tabby(server)]), "load", "m")


@both
def test_a_folder_that_is_not_there_leaves_the_old_model_alone(face: str) -> None:
    with Tabby({"id": "Old", "parameters": {}}) as server:
        with pytest.raises(UnknownModel, match="Could not find the model path.*still loaded there: Old"):
            do(face, Router([tabby(server, {"m": "nowhere"})]), "load", "m")
        assert len(server.posted()) == 1


@both
def test_a_wrong_key_names_the_option(face: str) -> None:
    with Tabby() as server, pytest.raises(Refused, match=r"Invalid admin key.*admin_key=") as failed:
        do(face, Router([Backend.tabby(server.url, ["m"], api_key="other")]), "load", "m")
    assert failed.value.status == 401


@both
def test_a_deadline_holds_and_says_that_the_load_goes_on(face: str) -> None:
    with Tabby(slow=30.0) as server, pytest.raises(DeadlineExceeded, match="no sign of progress.*the load may go on there"):
        do(face, Router([tabby(server)]), "load", "m", deadline=1.0)


@both
def test_a_silent_load_ends_at_the_timeout(face: str) -> None:
    with Tabby(slow=30.0) as server, pytest.raises(LoadError, match=r"within timeout \(0.3 s"):
        do(face, Router([tabby(server)]), "load", "m", timeout=0.3)


@both
def test_a_load_whose_answer_is_cut_is_no_success(face: str) -> None:
    cut = chunked(sse({"model_type": "model", "module": 1, "modules": 4, "status": "processing"}))
    with FaultServer(NOTHING, cut, NOTHING) as server, pytest.raises(LoadError, match="ended before it was done"):
        do(face, Router([Backend.tabby(server.url, {"m": "New"}, admin_key="admin")]), "load", "m")


@both
def test_tabbyapi_unloads_what_is_loaded_and_nothing_else(face: str) -> None:
    with Tabby({"id": "New", "parameters": {}}) as server:
        assert not do(face, Router([tabby(server)]), "unload", "old").changed
        done = do(face, Router([tabby(server)]), "unload", "m")
    assert (done.changed, str(done)) == (True, "m (New) is not loaded on gpu-box")
    assert server.posted() == [("/v1/model/unload", None)]


def test_a_load_ends_the_rest_of_its_backend() -> None:
    with Tabby() as server:
        router = Router([tabby(server), Backend.openai("127.0.0.1:9", models=["m"])])
        pool = router._board.pool
        with pytest.raises(Exception, match="no backend answered"):
            router.chat("m", "hi")  # nothing is loaded: the server rests
        local = pool.serving("m")[0][1]
        assert not pool.rested(pool.places[0], local)
        router.load("m")
        assert pool.rested(pool.places[0], local)
        assert pool.places[0].is_loaded(local)
        router.close()


# ---- planned first -------------------------------------------------------------------------------------------


@both
def test_what_does_not_fit_is_refused_before_the_old_model_goes(face: str, tmp_path: Path) -> None:
    synthetic.exl3(tmp_path / "New", synthetic.LLAMA_70B, 4.0)
    with Tabby({"id": "Old", "parameters": {}}) as server:
        row = tabby(server, gpus=["RTX 4090"], model_dir=str(tmp_path))
        with pytest.raises(DoesNotFit) as refused:
            do(face, Router([row]), "load", "m")
        assert refused.value.plan is not None
        assert server.posted() == []
        assert do(face, Router([row]), "load", "m", force=True).planned == "not planned: force=True"


@both
def test_what_was_planned_is_what_is_loaded(face: str, tmp_path: Path) -> None:
    synthetic.exl3(tmp_path / "New", synthetic.LLAMA_70B, 4.0)
    with Tabby() as server:
        row = tabby(server, gpus=["RTX 5090", "RTX 4090"], model_dir=str(tmp_path), context=16384)
        done = do(face, Router([row]), "load", "m", cache="q8")
    assert done.planned.startswith("planned on the cards' whole memory: ")
    assert done.plan.fits
    asked = server.posted()[0][1]
    assert (asked["max_seq_len"], asked["cache_mode"]) == (16384, "8,8")
    assert asked["cache_size"] == done.plan.cache_tokens >= 16384 + 2048
    assert json.loads(json.dumps(done.to_dict()))["plan"]["fits"]


@both
def test_a_fleets_router_plans_from_what_the_file_says_of_a_model(
    face: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", "admin")
    configs = Path(__file__).parents[1] / "data" / "configs"
    with Tabby({"id": "Old", "parameters": {}}) as server:
        (tmp_path / "hydra.yaml").write_text(
            "hosts: {box: {cards: [RTX 5090]}}\n"
            "servers:\n"
            f"  tabby: {{kind: tabby, url: '{server.url}', host: box, model_dir: /only/there, admin_key: {{env: KEY}},\n"
            "    models: {\n"
            f"    big: {{name: Big, config: {configs / 'Llama-3.1-70B.json'}, bpw: 4.0}},\n"
            f"    m: {{name: New, config: {configs / 'Llama-3.1-8B.json'}, bpw: 4.0, context: 16384, cache: q8}}}}}}\n"
        )
        fleet = Fleet.from_file(tmp_path / "hydra.yaml")
        with pytest.raises(DoesNotFit):
            do(face, fleet.router(), "load", "big")
        assert server.posted() == []
        done = do(face, fleet.router(), "load", "m", context=32768)
        assert done.plan.fits
        assert done.planned.startswith("planned on the cards' whole memory: ")
        asked = server.posted()[0][1]
        assert (asked["model_name"], asked["max_seq_len"], asked["cache_mode"]) == ("New", 32768, "8,8")
        elsewhere = fleet.router(backends=[tabby(server)])  # which the file says nothing of
        assert do(face, elsewhere, "load", "m", context=4096).planned.startswith("not planned: its Backend has no gpus=")


def test_a_model_dir_without_the_model_is_said(tmp_path: Path) -> None:
    with Tabby() as server, pytest.raises(UnknownModel, match=r"no model at .*New.*model_dir="):
        do("sync", Router([tabby(server, gpus=["RTX 4090"], model_dir=str(tmp_path))]), "load", "m")


# ---- Ollama --------------------------------------------------------------------------------------------------


class Ollama(FaultServer):
    """Ollama as far as loading goes; `busy` looks long a model that is unloaded is still there."""

    def __init__(self, *loaded: str, busy: int = 0, pulls: Any = None) -> None:
        self.loaded, self.busy, self.pulls = dict.fromkeys(loaded, 4096), busy, pulls
        self._leaving: str | None = None
        super().__init__(self._answer)

    def _answer(self, body: bytes) -> Any:
        path = self.requests[-1][1]
        if path == "/api/tags":
            return plain({"models": [{"name": "m:latest"}, {"name": "old:latest"}]})
        if path == "/api/pull":
            return self.pulls
        if path == "/api/ps":
            if self._leaving and not self.busy:
                self.loaded.pop(self._leaving, None)
            self.busy -= self._leaving is not None
            return plain({"models": [{"name": f"{name}:latest", "context_length": size} for name, size in self.loaded.items()]})
        asked = json.loads(body)
        if asked["model"] == "nowhere":
            return plain({"error": "model 'nowhere' not found"}, 404)
        if asked["model"] == "huge":
            self.loaded = {}
            return plain({"error": "llama runner process has terminated: out of memory"}, 500)
        if asked.get("keep_alive") == 0:
            self._leaving = asked["model"]
            return plain({"model": asked["model"], "done": True, "done_reason": "unload"})
        self.loaded = {asked["model"]: asked.get("options", {}).get("num_ctx", 4096)}  # the old one makes room
        return plain({"model": asked["model"], "done": True, "done_reason": "load"})

    def posted(self) -> list[tuple[str, Any]]:
        return [(path, json.loads(body)) for method, path, _, body in self.requests if method == "POST"]


@both
def test_ollama_loads_with_an_empty_prompt_and_calls_keep_its_context(face: str) -> None:
    with Ollama("old") as server:
        router = Router([Backend.ollama(server.url, name="o")])
        done = router.load("m", context=16384, keep_alive="1h")
        assert (done.changed, done.context, done.replaced) == (True, 16384, ("old",))
        load = {"model": "m", "stream": False, "options": {"num_ctx": 16384}, "keep_alive": "1h"}
        assert server.posted() == [("/api/generate", load)]
        assert not do(face, router, "load", "m").changed
        place, local = router._board.pool.serving("m")[0]
        assert router._board.pool.service(place, local) == (16384, False)


@both
def test_ollama_unloads_and_waits_until_it_has(face: str) -> None:
    with Ollama("m", busy=2) as server:
        done = do(face, Router([Backend.ollama(server.url, name="o")]), "unload", "m")
        assert (done.changed, server.loaded) == (True, {})
    assert server.posted() == [("/api/generate", {"model": "m", "stream": False, "keep_alive": 0})]


@both
def test_the_first_that_has_it_loaded_unloads(face: str) -> None:
    with Ollama() as one, Ollama("m") as two:
        rows = [Backend.ollama(one.url, ["m"], name="one"), Backend.ollama(two.url, ["m"], name="two")]
        assert do(face, Router(rows), "unload", "m").backend == "two"
    assert one.posted() == []


def ndjson(*rows: Any) -> list[Any]:
    return chunked(*(json.dumps(row).encode() + b"\n" for row in rows), content_type="application/x-ndjson")


@both
def test_a_pull_tells_how_far_it_is_and_never_goes_back(face: str) -> None:
    layer = {"status": "pulling aaaa", "digest": "sha256:a", "total": 100}
    rows: list[Any] = [
        {"status": "pulling manifest"},
        layer,
        {**layer, "completed": 50},
        {**layer, "completed": 50},
        {"status": "pulling bbbb", "digest": "sha256:b", "total": 100, "completed": 0},
        {**layer, "completed": 100},
        {"status": "pulling bbbb", "digest": "sha256:b", "total": 100, "completed": 100},
        {"status": "verifying sha256 digest"},
        {"status": "success"},
    ]
    told: list[tuple[float, str]] = []
    with Ollama(pulls=ndjson(*rows)) as server:
        done = do(
            face,
            Router([Backend.ollama(server.url, ["other"], name="o")]),
            "pull",
            "qwen:7b",
            progress=lambda fraction, message: told.append((fraction, message)),
        )
    assert str(done) == "qwen:7b is there on o"
    assert server.posted() == [("/api/pull", {"model": "qwen:7b", "stream": True})]
    assert [fraction for fraction, _ in told] == [0.0, 0.0, 0.5, 0.5, 0.5, 1.0, 1.0, 1.0]
    assert told[-1] == (1.0, "o: success")


@both
@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"status": "pulling manifest"}, {"error": "pull model manifest: file does not exist"}], "file does not exist"),
        ([{"status": "pulling manifest"}], "ended before it was done"),
        ([{"status": "pulling manifest"}, "success"], "not a JSON object"),
    ],
)
def test_a_pull_without_success_is_no_success(face: str, rows: list[Any], words: str) -> None:
    with Ollama(pulls=ndjson(*rows)) as server, pytest.raises(LoadError, match=words):
        do(face, Router([Backend.ollama(server.url)]), "pull", "x")


def test_a_pull_that_stalls_ends_at_the_timeout_though_it_repeats_itself() -> None:
    row = json.dumps({"status": "pulling a", "digest": "sha256:a", "total": 9, "completed": 3}).encode() + b"\n"
    stalled = chunked(*[part for _ in range(40) for part in (row, 0.05)], content_type="application/x-ndjson")
    with Ollama(pulls=stalled) as server, pytest.raises(LoadError, match=r"no sign of progress for that long within timeout"):
        do("sync", Router([Backend.ollama(server.url)]), "pull", "x", timeout=0.4)


def test_a_model_that_is_not_there_points_to_pull() -> None:
    with Ollama() as server, pytest.raises(UnknownModel, match=r"'nowhere' not found.*router.pull"):
        do("sync", Router([Backend.ollama(server.url)]), "load", "nowhere")


def test_what_an_ollama_gave_up_for_a_load_that_failed_is_said() -> None:
    with Ollama("old") as server, pytest.raises(LoadError, match=r"out of memory; no longer loaded there: old"):
        do("sync", Router([Backend.ollama(server.url)]), "load", "huge")


def test_ollama_plans_only_a_gguf_under_the_models_own_name(tmp_path: Path) -> None:
    with Ollama() as server:
        row = Backend.ollama(server.url, ["m"], gpus=["RTX 4090"], model_dir=str(tmp_path))
        assert do("sync", Router([row]), "load", "m").planned == f"not planned: no m.gguf in {tmp_path}"


# ---- which server, and in which order ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "verb", "options", "words"),
    [
        ([Backend.openai("a", models=["m"])], "load", {}, r"a \(openai\) cannot load models.*tabby and ollama"),
        ([Backend.tabby("a", ["n"]), Backend.openai("b", models=["m"])], "load", {}, r"b \(openai\) cannot load models"),
        ([Backend.tabby("a", ["m"])], "pull", {}, r"cannot pull models.*kinds can: ollama"),
        ([Backend.tabby("a", ["m"])], "load", {"backend": "b"}, "backend='b' is not one of this router's.*there are a"),
        ([Backend.tabby("a", {"m": "default"})], "load", {}, "means whatever is loaded there"),
        ([Backend.ollama("a", ["other"])], "pull", {"model": "big:cloud"}, "runs in Ollama's cloud"),
        ([Backend.ollama("a", ["m"])], "load", {"timeout": 0}, "timeout=0"),
        ([Backend.ollama("a", ["m"])], "load", {"model": ""}, "not a model's name"),
    ],
)
def test_what_cannot_be_is_named_before_anybody_is_asked(rows: Any, verb: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        do("sync", Router(rows), verb, options.pop("model", "m"), **options)


@pytest.mark.parametrize(("kind", "option"), [("tabby", {"keep_alive": 5}), ("ollama", {"cache": "q8"})])
def test_a_server_without_a_word_for_a_wish_says_so(kind: str, option: dict[str, Any]) -> None:
    with Tabby() if kind == "tabby" else Ollama() as server, pytest.raises(ConfigError, match=next(iter(option))):
        do("sync", Router([getattr(Backend, kind)(server.url, ["m"])]), "load", "m", **option)


def test_a_dead_server_is_unreachable_and_an_unlisted_model_unknown() -> None:
    with pytest.raises(Unreachable, match="did not load 'm'"):
        do("sync", Router([Backend.ollama("127.0.0.1:9", ["m"])]), "load", "m")
    rows = [Backend.ollama("127.0.0.1:9", ["m"], name="o"), Backend.openai("127.0.0.1:9", models=["n"])]
    with pytest.raises(UnknownModel, match="no backend serves the model 'n'.*served are: m"):
        do("sync", Router(rows), "load", "n", backend="o")


def test_threads_and_loops_take_turns_at_one_server_first_come_first_served() -> None:
    """Two rows for one address are one server: nothing of a second change is sent before the first is over."""
    begun, events = threading.Event(), chunked(0.5, sse({"model_type": "model", "module": 1, "modules": 1, "status": "finished"}))

    class Slow(Tabby):
        def _load(self, asked: dict[str, Any]) -> Any:
            begun.set()
            self.loaded = {"id": asked["model_name"], "parameters": {}}
            return events

    with Slow() as server:
        rows = [tabby(server), Backend.tabby(server.url, {"n": "Other"}, admin_key="admin", name="again")]
        router = Router(rows)
        first = threading.Thread(target=router.load, args=("m",), name="hydra-test-load")
        first.start()
        assert begun.wait(5)
        done = asyncio.run(router.aio.load("n"))
        first.join()
        assert (done.changed, done.replaced) == (True, ("New",))
        paths = [path for _, path, _, _ in server.requests]
        one, two = (index for index, path in enumerate(paths) if path == "/v1/model/load")
        assert paths[one + 1] == "/v1/model"  # the first one's own look, not the second's load
        assert two > one + 2
        router.close()


def test_a_turn_that_never_comes_ends_at_the_deadline() -> None:
    with Tabby() as server:
        router = Router([tabby(server)])
        turn = router._board._turns.take(router._board.backends[0].url)
        with pytest.raises(DeadlineExceeded, match="another change of its models"):
            router.load("m", deadline=0.2)
        router._board._turns.leave(router._board.backends[0].url, turn)
        assert router.load("m").changed
        router.close()


def test_a_load_that_is_left_gives_its_turn_back() -> None:
    with Tabby(slow=30.0) as server:
        router = Router([tabby(server)])

        async def leave() -> None:
            task = asyncio.create_task(router.aio.load("m"))
            await asyncio.sleep(0.3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            server.slow, server.loaded = 0.0, None
            assert (await router.aio.load("m")).changed

        asyncio.run(leave())
        router.close()


# ---- against the faithful stand-ins --------------------------------------------------------------------------


@both
def test_a_day_at_tabbyapi(face: str) -> None:
    folders = {
        "Old": Folder(),
        "Big": Folder(),
        "Oom": Folder(fails="Insufficient VRAM in split for model and cache", fails_at=5),
    }
    with TabbyServer(folders, "Old") as server:

        def day(verb: str, *args: Any, **options: Any) -> Change:
            row = Backend.tabby(server.url, api_key=API_KEY, admin_key=ADMIN_KEY, name="t")
            return do(face, Router([row]), verb, *args, **options)

        assert day("load", "Big", context="16k", cache="q8").replaced == ("Old",)
        assert not day("load", "Big", context="16k", cache="8,8").changed
        with pytest.raises(LoadError, match="Insufficient VRAM.*'Big' was put back"):
            day("load", "Oom")
        assert (server.loaded, server.loads[-1]["max_seq_len"], server.loads[-1]["cache_mode"]) == ("Big", 16384, "Q8")
        assert day("unload", "Big").changed
        assert server.loaded is None


@both
def test_a_day_at_ollama(face: str) -> None:
    with OllamaServer(["a"], library={"c": Tag(size=1000)}) as server:

        def day(verb: str, *args: Any, **options: Any) -> Change:
            return do(face, Router([Backend.ollama(server.url, name="o")]), verb, *args, **options)

        assert day("load", "a", context=8192, keep_alive="10m").context == 8192
        assert day("unload", "a").changed
        assert day("pull", "c").changed
        assert day("load", "c").changed
        assert server.loaded == ["c"]
        with pytest.raises(LoadError, match="file does not exist"):
            day("pull", "nope")
