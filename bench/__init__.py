"""What is claimed about speed: each module prints a ratio against a rival or a limit, both measured in one run."""
