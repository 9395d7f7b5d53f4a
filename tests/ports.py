"""Ports for servers that tests start."""

from bench.stack import free_ports

__all__ = ["free_ports"]
