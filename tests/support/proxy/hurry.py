"""Envoys whose listeners wait a moment where they would wait for minutes."""

import yaml


def hurried(bootstrap: str, seconds: float) -> str:
    """Return a rendered configuration whose listeners wait for `seconds` in place of five minutes.

    What a route says of its own silence is left as it is.
    """
    document = yaml.safe_load(bootstrap)
    for listener in document["static_resources"]["listeners"]:
        assert "300s" == listener["per_connection_buffer_high_watermark_timeout"]
        listener["per_connection_buffer_high_watermark_timeout"] = f"{seconds}s"
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        manager["stream_idle_timeout"] = f"{seconds}s"
        manager["common_http_protocol_options"]["idle_timeout"] = f"{seconds}s"
    return yaml.safe_dump(document)
