"""The quick start of Patron: a shop that takes orders and processes them."""
