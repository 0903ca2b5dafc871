"""Envoy's configuration, rendered from authz's own and compared with it; and draining of a running Envoy."""
