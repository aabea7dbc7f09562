"""Planning commands: gpus, plan, survey."""

from __future__ import annotations

import argparse
from typing import Any

from ..errors import ConfigError
from .words import cards, command, gpu_names, numbers, print_json, tokens

__all__ = ["add_plan"]


def add_plan(commands: Any) -> None:
    gpus = command(commands, "gpus", _gpus, "this machine's NVIDIA cards, in PCI order")
    gpus.add_argument("--json", action="store_true")

    plan = command(commands, "plan", _plan, "will this model fit on these cards? (exit status 1: no)")
    plan.add_argument("model", nargs="?", help="a model folder, a .gguf file, a config.json, or smollm2")
    plan.add_argument("--fleet", metavar="FILE", help="a hydra.yaml: all its models on their own servers' cards")
    cards(plan)
    plan.add_argument("--context", type=tokens, default=8192, metavar="TOKENS", help="8192 or 32k")
    plan.add_argument("--cache", default="fp16", help="fp16, q8, q6, q4, or 'k,v' bits")
    plan.add_argument("--split", default="auto", choices=["auto", "single", "layers", "tensor"])
    plan.add_argument("--gpu-split", type=numbers, metavar="GIB,GIB")
    plan.add_argument("--reserve", type=numbers, metavar="GIB,GIB")
    plan.add_argument("--slots", type=int, default=1, help="requests at once")
    plan.add_argument("--chunk", type=int, default=2048, help="tokens of the prompt at once")
    plan.add_argument("--bpw", type=float, help="bits per weight, for a config.json alone")
    plan.add_argument("--format", help="format, for a config.json alone")
    plan.add_argument("--draft", metavar="MODEL", help="a draft model's folder, mtp or ngram")
    plan.add_argument("--draft-tokens", type=int, metavar="N", help="tokens drafted per step")
    plan.add_argument("--engine", help="exllamav3, exllamav2, llamacpp or tabby; default: what loads the format")
    plan.add_argument("--suggest", action="store_true", help="also the longest context, and what to change")
    plan.add_argument("--tabby-config", action="store_true", help="print TabbyAPI's config.yml for this plan, and nothing else")
    plan.add_argument("--json", action="store_true")

    survey = command(
        commands, "survey", _survey, "which of these models fit, with which context and cache? (exit status 1: none)"
    )
    survey.add_argument("models", nargs="+", help="model folders, .gguf files, config.jsons, or smollm2")
    cards(survey)
    survey.add_argument("--contexts", type=tokens, nargs="+", default=[8192], metavar="TOKENS", help="8k 32k")
    survey.add_argument("--caches", nargs="+", default=["fp16"], metavar="CACHE", help="fp16 q8 8,4")
    survey.add_argument("--bpws", type=float, nargs="+", metavar="BITS", help="bits per weight, for a config.json alone")
    survey.add_argument("--format", help="format, for a config.json alone")
    survey.add_argument("--slots", type=int, default=1, help="requests at once")
    survey.add_argument("--json", action="store_true")


def _gpus(arguments: argparse.Namespace) -> int:
    from ..hardware.nvml import gpus

    cards = gpus()
    if arguments.json:
        print_json([card.to_dict() for card in cards])
        return 0
    for card in cards:
        print(card)
    if not cards:
        print("no NVIDIA card, or no driver, on this machine")
    return 0


def _plan(arguments: argparse.Namespace) -> int:
    from ..planning import plan

    if arguments.fleet:
        return _plan_fleet(arguments)
    if arguments.model is None:
        raise ConfigError("plan needs a model, or --fleet FILE")
    planned = plan(
        arguments.model,
        gpus=gpu_names(arguments.gpus),
        context=arguments.context,
        cache=arguments.cache,
        split=arguments.split,
        slots=arguments.slots,
        chunk=arguments.chunk,
        gpu_split=arguments.gpu_split,
        reserve=arguments.reserve,
        bpw=arguments.bpw,
        format=arguments.format,
        draft=arguments.draft,
        draft_tokens=arguments.draft_tokens,
        engine=arguments.engine,
    )
    if arguments.tabby_config:
        print(planned.tabby_config(), end="")
        return 0
    suggestions = planned.suggestions if arguments.suggest else ()
    if arguments.json:
        more = {"suggestions": [one.to_dict() for one in suggestions], "max_context": planned.max_context}
        print_json(planned.to_dict() | (more if arguments.suggest else {}))
        return 0 if planned.fits else 1
    print(planned)
    if arguments.suggest:
        remedies = [one.why for one in suggestions] + [one.why for one in [planned.cpu_experts()] if one]
        print(f"max context: {planned.max_context}", *(f"try: {why}" for why in remedies), sep="\n")
    return 0 if planned.fits else 1


def _plan_fleet(arguments: argparse.Namespace) -> int:
    from ..fleet.fleet import Fleet

    planned = Fleet.from_file(arguments.fleet).plan()
    print(planned.to_json() if arguments.json else planned)
    return 0 if planned.fits else 1


def _survey(arguments: argparse.Namespace) -> int:
    from ..planning import survey

    found = survey(
        arguments.models,
        gpus=gpu_names(arguments.gpus),
        contexts=arguments.contexts,
        caches=arguments.caches,
        bpws=arguments.bpws,
        format=arguments.format,
        slots=arguments.slots,
    )
    print(found.to_json() if arguments.json else found)
    return 0 if any(row["fits"] for row in found.rows) else 1
