"""`python -m authz` is the same as `authz`."""

from authz.cli import main

main()
