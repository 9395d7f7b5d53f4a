"""The store: a database with API keys, versions of the configuration, usage and the audit log."""
