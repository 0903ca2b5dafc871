"""Tokens that are held: exchanged, pushed to Envoys, stood for by references; and proofs of credentials."""
