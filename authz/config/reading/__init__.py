"""From YAML and environment to the model: references, validation, and how faults read."""
