"""Envoy configurations of this repository that `authz envoy` renders, and the verb that writes them.

No part of the product: operators run the command on their own configuration.
"""
