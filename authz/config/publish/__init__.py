"""The configuration's reference page and JSON Schema, made from the model."""
