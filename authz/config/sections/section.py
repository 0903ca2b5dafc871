"""`Section`, the base of every part of the configuration, and what validation may look at.

Validation is given the environment as a value; nothing here reads the process's own.
"""

from collections.abc import Mapping
from typing import Any, get_origin

from pydantic import BaseModel, ConfigDict, ValidationInfo, model_validator


class Section(BaseModel):
    """Part of the configuration: frozen, and closed to keys it does not know."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        # Pydantic would print what it was given, and that may be a secret in the wrong place.
        hide_input_in_errors=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _take_empty_sections_as_absent(cls, data: Any) -> Any:
        # `log:` above lines that are all commented out is null in YAML. Lists and values are not
        # forgiven so: an empty `scopes:` might have been meant to demand something.
        if not isinstance(data, dict):
            return data
        return {
            key: value
            for key, value in data.items()
            if value is not None or not cls._holds_keys(key)
        }

    @classmethod
    def _holds_keys(cls, name: Any) -> bool:
        field = cls.model_fields.get(name) if isinstance(name, str) else None
        kind = field.annotation if field else None
        return get_origin(kind) is Mapping or (isinstance(kind, type) and issubclass(kind, Section))


def environ_of(info: ValidationInfo) -> Mapping[str, str]:
    """Return the environment that the validation was given; empty when it was given none."""
    context = info.context
    environ: Any = context.get("environ", {}) if isinstance(context, dict) else {}
    return environ if isinstance(environ, Mapping) else {}
