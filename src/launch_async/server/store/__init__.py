"""The database: facts that must be queried or must not be lost."""

from launch_async.server.store.engine import Store

__all__ = ["Store"]
