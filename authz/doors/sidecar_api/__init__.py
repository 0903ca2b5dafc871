"""The HTTP API of the Entra SDK sidecar, for apps that ask for their tokens themselves."""
