"""The gRPC doors: ext_authz and SDS. The rendering of Envoy's configuration is `authz.envoy_config`."""
