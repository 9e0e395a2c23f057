"""Writes docs/config.schema.json from the models of the configuration, for editors that complete
and check YAML by a JSON schema; `make docs` runs it, and a test keeps the file in step.

PYTHONPATH=scripts python docs/make_schema.py
"""

import json
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from lib.blocks import Block
from lib.config.run import Config
from lib.registry import Chooser, Registry, SharedBlock

FILE = Path(__file__).resolve().parent / "config.schema.json"
DESCRIPTION = (
    "Configuration of the PDS-DPO workflow (docs/configuration.md). What is not said in a file has"
    " its default. Whether files, models and names that are named are there, Snakemake says."
)


class ConfigSchema(GenerateJsonSchema):
    """pydantic's schema, with all kinds of a block where a configuration chooses one."""

    def function_before_schema(
        self, schema: core_schema.BeforeValidatorFunctionSchema
    ) -> JsonSchemaValue:
        """Of a field that `chosen_from` annotates: any of its blocks."""
        chooser: Any = getattr(schema["function"]["function"], "__self__", None)
        if not hasattr(chooser, "block_for"):
            return super().function_before_schema(schema)
        return {"anyOf": [self._block(chooser, block) for block in chooser.blocks()]}

    def _block(self, chooser: Chooser, block: type[Block]) -> JsonSchemaValue:
        """One of the blocks, as one of its own. The key that names its kind is not required where
        it is the default or a model's files may say it; the other kinds' keys are there where they
        are passed over.
        """
        reference = self.generate_inner(block.__pydantic_core_schema__)
        if not isinstance(chooser, Registry):
            return reference
        definition = self.get_schema_from_definitions(reference["$ref"])
        assert definition is not None
        if chooser.said_by or chooser.kind_in({}) == _kind_of(block, chooser.key):
            definition["required"] = [
                key for key in definition.get("required", []) if key != chooser.key
            ]
        if isinstance(chooser, SharedBlock):
            for other in chooser.blocks():
                for key in other.model_fields.keys() - block.model_fields.keys():
                    definition["properties"][key] = {}
        return reference


def _kind_of(block: type[Block], key: str) -> Any:
    return block.model_json_schema()["properties"][key].get("const")


def schema() -> dict[str, Any]:
    """The whole schema."""
    values = Config.model_json_schema(schema_generator=ConfigSchema)
    return {
        "$schema": ConfigSchema.schema_dialect,
        "title": "PDS-DPO configuration",
        **{key: value for key, value in values.items() if key not in ("title", "description")},
        "description": DESCRIPTION,
    }


def text() -> str:
    """The file's text."""
    return json.dumps(schema(), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
