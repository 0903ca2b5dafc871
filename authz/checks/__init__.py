"""The path of a Check, and what an app receives at its end."""
