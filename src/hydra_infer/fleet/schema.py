"""What may stand in a hydra.yaml: its tables and their fields. Sizes are GiB, times seconds, contexts tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from ..errors import ConfigError
from ..units import parse_tokens

__all__ = ["Card", "Draft", "FleetFile", "Host", "Key", "Model", "Server", "editor_schema"]

HERE = "this machine"


def _wrong(message: str) -> PydanticCustomError:
    # Message templates have braces of their own.
    return PydanticCustomError("hydra", "{message}", {"message": message})


def _tokens(value: Any) -> int:
    try:
        return parse_tokens(value)
    except ConfigError:
        raise _wrong("is not a number of tokens (for example 8192 or 32k)") from None


def _as_table(field: str) -> Callable[[Any], Any]:
    """A bare word is short for a table with only that field."""
    return lambda value: {field: value} if isinstance(value, str) else value


def _as_models(value: Any) -> Any:
    """A list of names is short for models that the server calls the same; a name alone (`llama:`) likewise."""
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return {name: {} for name in value}
    return {name: {} if one is None else one for name, one in value.items()} if isinstance(value, dict) else value


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _not_bare(value: Any) -> Any:
    if isinstance(value, str):
        raise _wrong("is a key in plain sight: {env: NAME} or {file: PATH} says where it is, {literal: …} that it may stand here")
    return value


Tokens = Annotated[int, BeforeValidator(_tokens, json_schema_input_type=int | str)]
Words = Annotated[list[str], BeforeValidator(_as_list, json_schema_input_type=str | list[str])]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class Card(_Table):
    """One graphics card: a name from the catalogue, or a card described by hand."""

    name: str
    memory: Positive | None = Field(default=None, description="GiB; needed where the catalogue lacks the card")
    free: Positive | None = Field(default=None, description="GiB that a server may have; left out: nearly all of it")
    bandwidth: Positive | None = Field(default=None, description="GB/s")


class Host(_Table):
    """A machine. An empty list of cards is one that computes on its CPU; without a list nothing is planned there."""

    cards: Annotated[
        list[Annotated[Card, BeforeValidator(_as_table("name"), json_schema_input_type=str | Card)]] | None,
        BeforeValidator(_as_list, json_schema_input_type=list[str | Card] | Literal["this machine"] | None),
        Field(description=f"names in PCI order, or '{HERE}': the driver here is asked"),
    ] = None
    ram: Positive | None = Field(default=None, description="GiB of system memory that models may take")
    ssh: str | None = Field(default=None, description="how ssh reaches it (user@name), for doctor to look at it there")

    @property
    def here(self) -> bool:
        """Whether its cards are those of the machine that reads the file."""
        return self.cards is not None and [card.name for card in self.cards] == [HERE]


class Key(_Table):
    """Where a key is: exactly one of the three."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    env: str | None = Field(default=None, description="the environment variable that holds it")
    file: str | None = Field(default=None, description="a file that holds it and nothing else")
    literal: str | None = Field(default=None, repr=False, description="the key itself: whoever reads this file has it")

    @model_validator(mode="after")
    def _exactly_one(self) -> Key:
        if [self.env, self.file, self.literal].count(None) != 2:
            raise _wrong("is exactly one of env, file and literal")
        return self


KeyPlace = Annotated[Key, BeforeValidator(_not_bare, json_schema_input_type=Key)]


class Draft(_Table):
    """What drafts for a model: "mtp", "ngram", or the folder of a small model beside it."""

    name: str
    config: str | None = Field(default=None, description="its config.json, where the folder is not on this machine")
    tokens: Count | None = Field(default=None, description="drafted per step")


class Model(_Table):
    """One model on one server. Its key in the file is the name that users say."""

    name: str | None = Field(
        default=None, description="what the server calls it: TabbyAPI's folder, Ollama's tag; left out: the same"
    )
    context: Tokens | None = Field(default=None, description="tokens, or 32k")
    cache: str | None = Field(default=None, description="fp16, q8, q6, q4, or 'k,v' bits")
    draft: Annotated[Draft, BeforeValidator(_as_table("name"), json_schema_input_type=str | Draft)] | None = None
    split: Literal["auto", "single", "layers", "tensor"] | None = None
    gpu_split: list[float] | None = Field(default=None, description="GiB per card")
    reserve: list[float] | None = Field(default=None, description="GiB per card that stay free")
    slots: Count | None = Field(default=None, description="requests at once that are planned for")
    chunk: Count | None = Field(default=None, description="tokens of the prompt at once")
    aliases: Words = []
    fallbacks: Words = []
    tags: Words = []
    config: str | None = Field(default=None, description="its config.json, to plan from where its files are not on this machine")
    bpw: float | None = Field(default=None, description="bits per weight, beside config")
    format: Literal["exl3", "exl2", "hf", "gguf"] | None = Field(
        default=None, description="beside config; else the server's usual"
    )
    embeds: bool = Field(default=False, description="it makes vectors, no text")
    takes: Positive | None = Field(
        default=None, description="GiB it was seen to take, for one that cannot be planned (embeddings)"
    )


class Service(_Table):
    """Where a TabbyAPI is on its machine, for the unit that starts it. Paths are absolute."""

    folder: str = Field(description="its checkout, where config.yml and api_tokens.yml lie")
    python: str = Field(description="its environment's interpreter")
    user: str
    prestart: list[str] | None = Field(default=None, description="a command that must succeed before each start")
    prestart_seconds: Count | None = Field(default=None, description="the longest that command may take")
    load_seconds: Count | None = Field(default=None, description="the longest a start may take until it serves or fails")


Models = Annotated[
    dict[str, Annotated[Model, BeforeValidator(_as_table("name"))]],
    BeforeValidator(_as_models, json_schema_input_type=dict[str, str | Model | None] | list[str]),
]


class Server(_Table):
    """One server. Its key in the file is its name in every table and answer."""

    kind: Literal["tabby", "ollama", "litellm", "openai"]
    url: str
    host: str | None = Field(default=None, description="the machine whose cards it uses")
    use_cards: list[Annotated[int, Field(ge=0)]] | None = Field(
        default=None, description="which of them, counted from 0; left out: all"
    )
    api_key: KeyPlace | None = None
    admin_key: KeyPlace | None = Field(default=None, description="TabbyAPI: needed to load and unload models")
    model_dir: str | None = Field(default=None, description="its folder of models, as this machine sees it")
    service: Service | None = Field(default=None, description="TabbyAPI: for its unit")
    models: Models | None = Field(default=None, description="by the names that users say; left out: the server is asked")
    weight: Price | None = None
    max_parallel: Count | None = None
    context: Tokens | None = None
    tags: Words = []
    allow_cloud: bool | None = None
    input_cost_per_token: Price | None = None
    output_cost_per_token: Price | None = None
    connect_timeout: Positive | None = None
    first_token_timeout: Positive | None = None
    idle_timeout: Positive | None = None
    timeout: Positive | None = None


class RouterTable(_Table):
    """The Router's own settings; what is left out is as Router has it."""

    strategy: Literal["ordered", "shuffle", "least-busy", "fastest", "sticky", "cheapest", "difficulty"] | None = None
    connect_timeout: Positive | None = None
    first_token_timeout: Positive | None = None
    idle_timeout: Positive | None = None
    timeout: Positive | None = None
    queue_timeout: Positive | None = None
    deadline: Positive | None = None
    retries: Annotated[int, Field(ge=0)] | None = None
    cooldown: Positive | None = None


class FleetFile(_Table):
    """hydra.yaml: the machines, the servers on them in order of preference, and how requests are routed."""

    hosts: dict[str, Host] = {}
    servers: Annotated[dict[str, Server], Field(min_length=1)]
    router: RouterTable = RouterTable()


def editor_schema() -> dict[str, Any]:
    """The file's JSON Schema, for editors that complete and check while one types."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **FleetFile.model_json_schema()}
