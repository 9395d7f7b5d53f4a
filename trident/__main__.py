"""Entry point of `python -m trident`, equivalent to the `trident` command."""

from trident.cli import main

main()
