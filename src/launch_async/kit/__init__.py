"""Async and text helpers that know nothing of launching."""
