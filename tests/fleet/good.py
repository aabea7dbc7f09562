"""A fleet's file with nothing wrong in it, in short forms and long ones."""

from __future__ import annotations

__all__ = ["GOOD"]

GOOD = """\
hosts:
  box: {cards: [RTX 4090], ram: 60}
servers:
  big:
    kind: tabby
    url: http://box:5000
    host: box
    models:
      large: {name: Large-EXL3, context: 32k, cache: q8, aliases: gpt-4, fallbacks: [small]}
  little:
    kind: ollama
    url: box:11434
    models: {small: "llama3.1:8b", "nomic-embed-text": }
router: {strategy: fastest, deadline: 45}
"""
