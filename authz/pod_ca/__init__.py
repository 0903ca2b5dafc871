"""The pod's own certificate authority, by which Envoy ends the TLS that the app starts itself."""
