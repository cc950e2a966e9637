"""Write the service's settings into the Helm chart's schema, so that a misspelt one is refused before anything runs."""

import json
from pathlib import Path
from typing import Any

from service.settings import Settings

SCHEMA = Path(__file__).resolve().parent.parent / "deploy" / "helm" / "tierwise" / "values.schema.json"
# The chart decides these: paths and addresses inside its own container, the engine, and what comes from a Secret.
CHART_OWNED = {
    "access",
    "admin_host",
    "admin_port",
    "cache_dir",
    "checkpoint",
    "engine",
    "grpc_port",
    "host",
    "http_port",
    "knowledge",
    "tls",
}


def settings_schema() -> dict[str, Any]:
    """Return the schema of the values' `settings`: the service's own, without what the chart decides."""
    whole = Settings.model_json_schema()
    definitions = whole.pop("$defs", {})
    properties = {
        name: _plain(value, definitions) for name, value in whole["properties"].items() if name not in CHART_OWNED
    }
    return {
        "description": "settings of the service; they become its tierwise.yaml",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def _plain(node: Any, definitions: dict[str, Any]) -> Any:
    """Resolve references, and drop the null of an optional setting, which is left out instead."""
    if isinstance(node, list):
        return [_plain(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        node = {**definitions[node["$ref"].rpartition("/")[2]], **{k: v for k, v in node.items() if k != "$ref"}}
    if "anyOf" in node:
        (kept,) = (choice for choice in node["anyOf"] if choice != {"type": "null"})
        node = {**kept, **{k: v for k, v in node.items() if k != "anyOf"}}
    dropped = {key for key, value in node.items() if _is_unwanted(key, value)}
    return {key: _plain(value, definitions) for key, value in node.items() if key not in dropped}


def _is_unwanted(key: str, value: Any) -> bool:
    """Tell what a chart's schema does without: titles, defaults that are nothing or a group, and secrets."""
    if isinstance(value, dict) and key != "default":
        return any(choice.get("writeOnly", False) for choice in value.get("anyOf", [value]))
    return (key == "title" and isinstance(value, str)) or (key == "default" and isinstance(value, dict | None))


def main() -> None:
    """Rewrite the chart's schema."""
    schema = json.loads(SCHEMA.read_text())
    schema["properties"]["settings"] = settings_schema()
    SCHEMA.write_text(json.dumps(schema, indent=2) + "\n")


if __name__ == "__main__":
    main()
