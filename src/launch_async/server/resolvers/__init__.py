"""Thin functions between the schema and the rules: they unpack, authorise, call and shape."""
