"""Limits of requests, tokens and parallel requests, exact for all processes that share them."""
