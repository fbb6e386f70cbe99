"""A shop for pets whose OpenAPI document was written first."""
