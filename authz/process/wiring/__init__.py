"""From the configuration to objects of the doors and of Entra: the only code that knows both."""
