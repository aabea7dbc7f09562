"""What the rigs of both engines share: a vocabulary of bytes, a mind that says what comes next, and CUDA's doors on a CPU.

A rig replaces an engine's compiled extension and the model's arithmetic, nothing else: generator, jobs, page table, cache
tensors, tokenizer and samplers are the engine's own. The stand-in for the model writes each token's id into the engine's
cache where the block table says, and chooses the next token by what it reads back from there: a fault in paging, in the
reuse of a prefix, in rewinding or in batching comes out as other tokens.
"""

from __future__ import annotations

import gc
import json
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

__all__ = ["BOS", "CONFIG", "EOS", "GO", "OTHER_EOS", "Faults", "Mind", "alive", "count_match", "on_cpu", "vocabulary"]

VOCAB = 512
BOS, EOS, GO, CALL, OTHER_EOS = range(VOCAB - 5, VOCAB)
SPECIAL = {BOS: "<s>", EOS: "</s>", GO: "<go>", CALL: "<|python_tag|>", OTHER_EOS: "<end>"}

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": VOCAB,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": False,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "hidden_act": "silu",
    "bos_token_id": BOS,
    "eos_token_id": EOS,
}

TEMPLATE = (
    "<s>{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if tools %}tools, by <|python_tag|>{ 'name', 'parameters' }\n{% endif %}"
    "{% if add_generation_prompt %}assistant: <go>{% endif %}"
)


def _pieces() -> dict[str, int]:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = {piece: index for index, piece in enumerate(alphabet)}
    return pieces | {f"unused{index}": index for index in range(len(alphabet), BOS)} | {text: at for at, text in SPECIAL.items()}


def tokenizer() -> Tokenizer:
    """One token per byte, and a few special ones; the beginning of a text is marked, as Llama's are."""
    made = Tokenizer(models.BPE(vocab=_pieces(), merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(SPECIAL.values()))
    return made


def vocabulary(folder: Path) -> Path:
    """Give a model's folder its tokenizer, its chat template and a second end of text."""
    tokenizer().save(str(folder / "tokenizer.json"))
    said: dict[str, Any] = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True, "chat_template": TEMPLATE}
    said["added_tokens_decoder"] = {str(at): {"content": text, "special": True} for at, text in SPECIAL.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [EOS, OTHER_EOS]}))
    return folder


class Mind:
    """What a model says: a text it was given, where the prompt names one, else a walk decided by the last five tokens.

    A prompt names text n by "[[n]]" and asks for it by ending in <go>. Every `slip`th position a mind with a slip says
    something else: so drafts are rejected now and then.
    """

    LETTERS = "abcdefghijklmnopqrstuvwxyz ,.\n0123456789"

    def __init__(self, texts: Sequence[str] = (), slip: int = 0) -> None:
        self._tokenizer = tokenizer()
        self._letters = self._tokenizer.encode(self.LETTERS).ids
        self._slip = slip
        self.texts = list(texts)

    def says(self, ids: Sequence[int]) -> list[int]:
        """The likeliest next tokens, best first: one where a text is told, else three."""
        told = self._text(ids)
        if told is not None:
            return [told]
        number = 0
        for one in ids[-5:]:
            number = (number * 31 + one + 7) % 1_000_003
        number += 1 if self._slip and len(ids) % self._slip == 0 else 0
        ahead = (0, 1 + number // 40 % 12, 14 + number // 480 % 12)
        return [self._letters[(number + step) % len(self._letters)] for step in ahead]

    def goes_on(self, prompt: str, tokens: int) -> str:
        """The likeliest text of so many tokens after a prompt."""
        ids = [BOS, *self._tokenizer.encode(prompt).ids]
        begun = len(ids)
        while len(ids) < begun + tokens:
            ids.append(self.says(ids)[0])
        return self._tokenizer.decode(ids[begun:])

    def _text(self, ids: Sequence[int]) -> int | None:
        ids = list(ids)
        if GO not in ids:
            return None
        at = len(ids) - ids[::-1].index(GO)
        named = self._tokenizer.decode(ids[:at]).rpartition("[[")[2].partition("]]")
        if not named[1]:
            return None
        text = [*self._tokenizer.encode(self.texts[int(named[0])]).ids, EOS]
        return text[min(len(ids) - at, len(text) - 1)]


def row(best: Sequence[int], width: int) -> torch.Tensor:
    """Logits of a mind's candidates, of which sampling may take any; nothing else is likely."""
    logits = torch.full((width,), -20.0)
    for one, height in reversed([*zip(best, (3.0, 2.0, 1.5), strict=False)]):
        logits[one] = height
    return logits


class Gate:
    """Where passes of one kind wait until it is opened."""

    def __init__(self) -> None:
        self._met, self._open = threading.Event(), threading.Event()

    def pass_through(self) -> None:
        self._met.set()
        self._open.wait()

    def wait_until_met(self) -> None:
        self._met.wait()

    def open(self) -> None:
        self._open.set()


class Faults:
    """Makes loads, prefills or decoding steps run out of memory (`next`) or wait (`held`), and counts them (`met`)."""

    WORDS = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 1 has a total capacity of 23.5 GiB"

    def __init__(self) -> None:
        self.met: Counter[str] = Counter()
        self._due: Counter[str] = Counter()
        self._gates: dict[str, Gate] = {}

    def next(self, stage: str, times: int = 1) -> None:
        """The next passes of `stage` ("load", "prefill", "decode") raise what CUDA raises."""
        self._due[stage] = times

    @contextmanager
    def held(self, stage: str) -> Iterator[Gate]:
        """Passes of `stage` wait at the gate until it is opened, at the latest when the block is left."""
        gate = self._gates[stage] = Gate()
        self.met.clear()
        try:
            yield gate
        finally:
            gate.open()

    def meet(self, stage: str) -> None:
        """What a rig calls at the beginning of each pass."""
        self.met[stage] += 1
        if stage in self._gates:
            self._gates[stage].pass_through()
        if self._due[stage]:
            self._due[stage] -= 1
            raise torch.cuda.OutOfMemoryError(self.WORDS)


def alive(kinds: tuple[type, ...]) -> dict[str, int]:
    """How many objects of these classes live."""
    gc.collect()
    return dict(Counter(type(one).__name__ for one in gc.get_objects() if issubclass(type(one), kinds)))


@contextmanager
def on_cpu(patch: Any, cards: int = 2) -> Iterator[None]:
    """torch as if it had cards, whose memory is this machine's."""
    for name in ("empty", "zeros", "empty_like"):
        patch.setattr(torch, name, _unpinned(getattr(torch, name)))
    patch.setattr(torch.Tensor, "pin_memory", lambda self, *_: self)
    patch.setattr(torch.cuda, "synchronize", lambda *_: None)
    patch.setattr(torch.cuda, "device_count", lambda: cards)
    yield


def _unpinned(make: Any) -> Any:
    def made(*arguments: Any, **named: Any) -> Any:
        named.pop("pin_memory", None)
        return make(*arguments, **named)

    return made


# ---- the functions of the extensions that both engines' generators call, in Python ---------------------------------------


def count_match(left: torch.Tensor, right: torch.Tensor, most: int) -> int:
    """How many leading elements two sequences share."""
    left, right = left.flatten()[:most], right.flatten()
    width = min(len(left), len(right))
    different = (left[:width] != right[:width]).nonzero()
    return int(different[0]) if len(different) else width


def partial_match(text: Any, offsets: Any, needles: Any) -> int:
    """Where a needle is found in UTF-32 text, -2 where the text's end may be the beginning of one, else -1."""
    text, offsets = np.frombuffer(text, np.uint32), np.frombuffer(offsets, np.uint32)
    joined = np.frombuffer(needles, np.uint32)
    found = partial = len(text)
    for begin, end in zip(offsets[:-1] // 4, offsets[1:] // 4, strict=True):
        needle = joined[begin:end]
        for at in range(len(text)):
            piece = text[at : at + len(needle)]
            if len(needle) and (piece == needle[: len(piece)]).all():
                found, partial = (min(found, at), partial) if len(piece) == len(needle) else (found, min(partial, at))
                break
    if partial < found:
        return -2
    return found if found < len(text) else -1
