"""The doors that Envoy knocks on: ext_authz, and the rendering of Envoy's own configuration."""
