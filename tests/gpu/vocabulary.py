"""A tokenizer of any size: a token for every byte, names for the rest, and the two ends of a text last.

Text of n ASCII characters has n tokens, so that a prompt of a given length is a string of that length.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["END", "START", "token_of", "write"]

START, END = "<s>", "</s>"


def write(folder: Path, size: int) -> None:
    """tokenizer.json and tokenizer_config.json for a vocabulary of `size` tokens."""
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer(size)), encoding="utf-8")
    told = {"bos_token": START, "eos_token": END, "add_bos_token": True, "model_max_length": 131072}
    (folder / "tokenizer_config.json").write_text(json.dumps(told), encoding="utf-8")


def token_of(character: str) -> int:
    """The id of an ASCII character."""
    return list(_bytes()).index(character)


def _tokenizer(size: int) -> dict[str, Any]:
    names = [*_bytes()]
    names += [f"<{number}>" for number in range(len(names), size - 2)]
    names += [START, END]
    whole = {"add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": size - 2, "content": START, **flags}, {"id": size - 1, "content": END, **flags}],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", **whole},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", **whole},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {name: number for number, name in enumerate(names)},
            "merges": [],
        },
    }


def _bytes() -> Iterator[str]:
    """GPT-2's printable stand-ins for the 256 bytes: what is printable stands for itself, the others follow from U+0100."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    yield from (chr(byte if byte in printable else next(others)) for byte in range(256))
