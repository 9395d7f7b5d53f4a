"""`python -m trident`, the same as the command `trident`."""

from trident.cli import main

main()
