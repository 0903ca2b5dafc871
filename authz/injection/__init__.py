"""Envoy and authz put into pods that ask for it by label: `authz inject` and `authz inject-webhook`."""
