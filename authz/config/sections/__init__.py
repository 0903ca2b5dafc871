"""The sections of the configuration (pydantic), a module for each; the whole is `authz.config.model`."""
