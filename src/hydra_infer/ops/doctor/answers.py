"""What a server's answers mean: is it there, is it what the file says, does it let us in, has it the models, on its cards?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from .report import Finding, unseen
from .server import ServerFacts, Wanted

__all__ = ["check_answers"]

# Versions of LiteLLM that carried malicious code (24 March and 21 October 2026).
_COMPROMISED = re.compile(r"1\.82\.[78]|1\.107\.\d+")

# Its advisories of 2026: the first version without each.
_HOLES = (
    ((1, 83, 7), "CVE-2026-42208 (SQL injection without a key, exploited)"),
    ((1, 83, 10), "CVE-2026-40217 (a way out of its sandbox)"),
    ((1, 84, 0), "CVE-2026-49468 (its authentication passed by a Host header)"),
    ((1, 101, 1), "CVE-2026-102999, CVE-2026-104874"),
)

_QUESTIONS = {
    "models": "which models it has",
    "loaded": "what it has loaded",
    "model": "what it has loaded",
    "permission": "its keys",
}
_CLOSED = {"tabby": "; while it starts and loads its first model TabbyAPI's port is closed too"}


def check_answers(facts: ServerFacts) -> Iterator[Finding]:
    """Every finding of one server. Further steps are not judged where an earlier one already fails."""
    info = facts.answers["info"]
    if info.status == 0:
        yield _error(
            facts,
            f"nothing usable answers at {facts.url}: {info.trouble}",
            "calls turn to the next server, or fail" + _CLOSED.get(facts.kind, ""),
            "see that the machine is on and the service runs (systemctl status), then ask again",
        )
    elif not _is_kind(facts):
        yield _error(
            facts,
            f"what answers at {facts.url} is not {facts.kind}",
            "another server has the port, and answers in its own way or with other models",
            "hydra-infer doctor on that machine names the port's owner; or correct url: and kind: in the fleet file",
        )
    else:
        yield from {"tabby": _tabby, "ollama": _ollama, "litellm": _litellm, "openai": _listing}[facts.kind](facts)


def _rows(facts: ServerFacts, question: str, key: str) -> list[dict[str, Any]] | None:
    """The tables in a list that it answered with; None where that is no list."""
    found = facts.answers[question].get(key) if question in facts.answers else None
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else None


def _count(value: Any) -> int:
    """A number of tokens or bytes; 0 for anything else."""
    return value if isinstance(value, int) and value > 0 else 0


def _is_kind(facts: ServerFacts) -> bool:
    info = facts.answers["info"]
    if facts.kind == "tabby":
        return bool(info.get("software", "name") == "TabbyAPI")
    if facts.kind == "ollama":
        return isinstance(info.get("version"), str)
    if facts.kind == "litellm":
        return info.status == 200 and "alive" in str(info.data)
    return info.status in (401, 403) or isinstance(info.get("data"), list)


# ---- TabbyAPI ------------------------------------------------------------------------------------------------


def _tabby(facts: ServerFacts) -> Iterator[Finding]:
    if facts.answers["health"].status == 503:
        yield _warning(
            facts,
            f"it calls itself unhealthy: {_issue(facts.answers['health'].get('issues'))}",
            "an answer failed since it was started, and it says so until it is started again, even when it answers well",
            "hydra-infer watch proves by one token whether it answers; if it does not, restart it",
        )
    permission = facts.answers["permission"]
    if permission.status == 401:
        yield _no_entry(facts, "api_key", "api_tokens.yml in TabbyAPI's folder")
        return
    if permission.status == 200:
        yield from _level(facts)
    else:
        yield _silent(facts, "permission")
    yield from _loaded_by_tabby(facts)
    yield from _folders(facts)


def _issue(issues: Any) -> str:
    last = issues[-1] if isinstance(issues, list) and issues else {}
    return str(last.get("description", "no reason given") if isinstance(last, dict) else last)[:200]


def _level(facts: ServerFacts) -> Iterator[Finding]:
    """Which rights the keys give: too few to load, or more than calls need."""
    level = facts.answers["permission"].get("permission")
    if level == "admin" and not facts.has_key:
        yield _warning(
            facts,
            "it asks nobody for a key",
            "whoever reaches the port may unload its model and download others",
            "network: disable_auth: false in its config.yml, and api_key: in the fleet file",
        )
    elif level == "admin":
        yield _warning(
            facts,
            "its api_key has the admin's rights",
            "every call then carries a key that may load and unload",
            "give api_key: the value of api_key in api_tokens.yml, and admin_key: the other one",
        )
    if facts.has_admin_key and facts.answers["admin"].get("permission") != "admin":
        yield _error(
            facts,
            "its admin_key is not the admin's",
            "loading, unloading and switching are refused",
            "admin_key: is the value of admin_key in api_tokens.yml in TabbyAPI's folder",
        )


def _loaded_by_tabby(facts: ServerFacts) -> Iterator[Finding]:
    answer = facts.answers["model"]
    wanted = {one.local_name: one for one in facts.wanted or ()}
    if answer.status == 503:
        first = next(iter(wanted.values()), None)
        yield _error(
            facts,
            "no model is loaded",
            "it answers chats with status 500 until one is; while one is being loaded this is so too",
            f"hydra-infer load {first.model} --fleet FILE --backend {facts.name}" if first else "name one in its config.yml",
        )
        return
    if answer.status != 200 or not isinstance(answer.get("id"), str):
        yield _silent(facts, "model")
        return
    name, parameters = answer.get("id"), answer.get("parameters")
    parameters = parameters if isinstance(parameters, dict) else {}
    if wanted and name not in wanted and "default" not in wanted:
        yield _error(
            facts,
            f"it has {name!r} loaded, and the fleet file says {', '.join(map(repr, wanted))}",
            "TabbyAPI answers under any name with the model that it has; the router then passes it by",
            f"hydra-infer switch {next(iter(wanted.values())).model} --fleet FILE",
        )
        return
    model = wanted.get(name) or wanted.get("default")
    yield from _room(facts, model, parameters)
    if not parameters.get("prompt_template") and not (model and model.embeds):
        yield _error(
            facts,
            f"{name} has no chat template",
            "chats are refused with status 422",
            "put the original model's chat_template.jinja (or its tokenizer_config.json) into the folder and load it again",
        )


def _room(facts: ServerFacts, model: Wanted | None, parameters: dict[str, Any]) -> Iterator[Finding]:
    """The context it was loaded with, and what its cache leaves for a prompt: a chunk of output is set aside."""
    wanted = model.context if model else None
    context, cache, chunk = (_count(parameters.get(key)) for key in ("max_seq_len", "cache_size", "chunk_size"))
    if model is None or wanted is None or not (context and cache):
        return
    if context < wanted:
        yield _warning(
            facts,
            f"{model.local_name} has a context of {context}, and the fleet file says {wanted}",
            "longer prompts are refused there, and the router counts on the larger one",
            f"hydra-infer load {model.model} --fleet FILE --context {wanted}, or context: {context} in the fleet file",
        )
    elif cache - chunk + 1 < wanted:
        yield _warning(
            facts,
            f"its cache of {cache} tokens takes prompts of {cache - chunk + 1}, and the fleet file says {wanted}",
            "longer prompts are refused with status 400 (context_length_exceeded)",
            f"cache_size: {-(-(wanted + chunk) // 256) * 256} in its config.yml or the model's tabby_config.yml",
        )


def _folders(facts: ServerFacts) -> Iterator[Finding]:
    """Models of the file that its disk lacks. Only the admin is shown all folders."""
    rows = _rows(facts, "folders", "data")
    if rows is None:
        return
    there = {str(row.get("id")) for row in rows}
    for model in facts.wanted or ():
        if model.local_name not in there and model.local_name != "default":
            yield _error(
                facts,
                f"it has no folder {model.local_name!r} for {model.model}",
                "the model cannot be loaded there",
                "put it into its model_dir, mount that, or correct name: in the fleet file",
            )


# ---- Ollama --------------------------------------------------------------------------------------------------


def _ollama(facts: ServerFacts) -> Iterator[Finding]:
    rows = _rows(facts, "models", "models")
    if rows is None:
        yield _silent(facts, "models")
    else:
        there = {_full(str(row.get("name"))) for row in rows}
        for model in facts.wanted or ():
            if _full(model.local_name) not in there:
                yield _error(
                    facts,
                    f"it has no {model.local_name!r}",
                    f"{model.model} is answered with status 404 there",
                    f"hydra-infer pull {model.model} --fleet FILE --backend {facts.name}",
                )
    loaded = _rows(facts, "loaded", "models")
    if loaded is None:
        yield _silent(facts, "loaded")
        return
    wanted = {_full(one.local_name): one for one in facts.wanted or ()}
    for row in loaded:
        yield from _placed(facts, row)
        yield from _window(facts, wanted.get(_full(str(row.get("name")))), row.get("context_length"))


def _placed(facts: ServerFacts, row: dict[str, Any]) -> Iterator[Finding]:
    """Ollama moves what does not fit, or a card that it lost, to the CPU without a word."""
    size, on_cards = _count(row.get("size")), _count(row.get("size_vram"))
    if facts.cards is not True or "size_vram" not in row or on_cards >= size:
        return
    share = f"{100 * on_cards // size} % of {row.get('name')} is on a card" if on_cards else f"{row.get('name')} runs on the CPU"
    yield _error(
        facts,
        f"{share}, and the machine has cards",
        "answers take many times as long, and nothing else shows it",
        "nvidia-smi there: is the card seen, and who holds its memory? then `ollama stop` the model, or restart Ollama; "
        "a smaller context or another model may be what fits",
    )


def _window(facts: ServerFacts, model: Wanted | None, context: Any) -> Iterator[Finding]:
    wanted = model.context if model else None
    if model and wanted and isinstance(context, int) and context < wanted:
        yield _warning(
            facts,
            f"{model.local_name} is loaded with a context of {context}, and the fleet file says {wanted}",
            "somebody else loaded it so: longer prompts are cut without a word, and each change of the number loads it again",
            f"OLLAMA_CONTEXT_LENGTH={wanted} in its drop-in, and no other num_ctx in its other clients",
        )


def _full(name: str) -> str:
    """Ollama compares names in lower case and with a tag."""
    name = name.lower().removeprefix("registry.ollama.ai/library/")
    return name if ":" in name else f"{name}:latest"


# ---- LiteLLM and others --------------------------------------------------------------------------------------


def _litellm(facts: ServerFacts) -> Iterator[Finding]:
    version = str(facts.answers["readiness"].get("litellm_version") or "")
    if _COMPROMISED.fullmatch(version):
        yield _error(
            facts,
            f"it is LiteLLM {version}, which carried malicious code",
            "keys on that machine must be taken as stolen",
            "stop it, install a version that is clean, and change every key that it could read",
        )
    holes = [name for fixed, name in _HOLES if version and _numbers(version) < fixed]
    if holes:
        yield _warning(
            facts,
            f"it is LiteLLM {version}, which has known holes: {', '.join(holes)}",
            "whoever reaches its port may use them",
            "a newer version; hydra-infer render pins one",
        )
    yield from _listing(facts)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:3]))


def _listing(facts: ServerFacts) -> Iterator[Finding]:
    rows = _rows(facts, "models", "data")
    if facts.answers["models"].status in (401, 403):
        yield _no_entry(facts, "api_key", "the server's own configuration")
        return
    if rows is None:
        yield _silent(facts, "models")
        return
    there = {str(row.get("id")) for row in rows}
    for model in facts.wanted or ():
        if model.local_name not in there:
            yield _error(
                facts,
                f"it does not list {model.local_name!r}",
                f"{model.model} is refused there",
                "add it to its model list, or take it out of the fleet file",
            )


def _silent(facts: ServerFacts, question: str) -> Finding:
    """It answered something else than what it was asked for."""
    answer = facts.answers.get(question)
    said = "it was not asked" if answer is None else answer.trouble or f"it answered with status {answer.status}"
    return unseen(facts.name, f"{_QUESTIONS[question]}: {said}")


def _no_entry(facts: ServerFacts, field: str, place: str) -> Finding:
    what = f"it refuses our {field}" if facts.has_key else f"it wants a key, and the fleet file has no {field}"
    return _error(facts, what, "no call is answered", f"{field}: as {place} has it")


def _error(facts: ServerFacts, what: str, why: str, mend: str) -> Finding:
    return Finding("error", facts.name, what, why, mend)


def _warning(facts: ServerFacts, what: str, why: str, mend: str) -> Finding:
    return Finding("warning", facts.name, what, why, mend)
