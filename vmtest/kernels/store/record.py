"""``entry.json`` of a kernel in the store: its schema, looked at before any of it is used.

An entry may have come with a bundle or a cache that somebody else made.  What it names is a file
in its own folder, by a plain name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    ValidationError,
    model_validator,
)

from vmtest.model.releases import is_member, is_release
from vmtest.model.versions import KernelVersion

SCHEMA = 1
FILE = "entry.json"


def _release(value: str) -> str:
    if not is_release(value):
        raise ValueError("no kernel is called so")
    return value


def _version(value: str) -> str:
    KernelVersion.parse(_release(value))
    return value


def _place(value: str) -> str:
    if not is_member(value):
        raise ValueError("not the plain name of a file in the entry")
    return value


Model = TypeVar("Model", bound=BaseModel)
Place = Annotated[str, AfterValidator(_place)]
Text = Annotated[str, Field(max_length=4096)]


class Record(BaseModel):
    """What an entry says of itself; paths are relative to its folder, sizes are in bytes."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    # "schema" is a method of BaseModel, hence the alias.
    format: Literal[1] = Field(alias="schema")
    key: Annotated[str, Field(min_length=1, max_length=240)]
    version: Annotated[str, AfterValidator(_version)]
    release: Annotated[str, AfterValidator(_release)]
    image: Place
    modules: Place | None
    config: Place | None
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{0,64}$")]
    origin: Text
    note: Text = ""
    image_size: NonNegativeInt
    tree_size: NonNegativeInt = 0

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if self.modules not in (None, f"lib/modules/{self.release}"):
            raise ValueError(f"modules: not lib/modules/{self.release}, as its release is")
        return self


class Answer(BaseModel):
    """What a question to a source was answered with: a file of ``resolved/``."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    key: Annotated[str, Field(min_length=1, max_length=240)]
    version: Annotated[str, AfterValidator(_version)]
    origin: Text


def read_answer(file: Path) -> Answer:
    """The answer in ``file``; raises ValueError that says what is wrong with it."""
    return _validated(Answer, file)


def read_entry(entry: Path) -> Record:
    """The record of the entry in the folder ``entry``, whose files are there.

    Raises ValueError that says what is wrong, OSError for what cannot be read.
    """
    record = _validated(Record, entry / FILE)
    inside = entry.resolve()
    for name in filter(None, (record.image, record.modules, record.config)):
        if not (entry / name).resolve().is_relative_to(inside):
            raise ValueError(f"{FILE}: {name} is a link out of the entry")
    size = (entry / record.image).stat().st_size
    if size != record.image_size:
        raise ValueError(f"{FILE}: {record.image} has {size} bytes and not {record.image_size}")
    return record


def _validated(kind: type[Model], file: Path) -> Model:
    try:
        return kind.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except RecursionError:
        raise ValueError(f"{file.name}: lists in lists without end") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        said = f": {first['input']!r}"[:120] if where else ""
        raise ValueError(f"{file.name}: {where}{said}: {first['msg']}") from None
