"""What keys of a configuration must agree on beyond their own values, and what is worth a notice.

The rules that a route has for its requests are in `authz.config.ruled`.
"""
