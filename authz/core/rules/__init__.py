"""Rules of a route: what a request is about to do decides whether it may, and with what.

`path` reads what the destination will see, `template` is how a rule names paths, `overriding` lists what
could make a server do something else, and `rule` finds the rule of a request. Nothing here knows of tokens.
"""
