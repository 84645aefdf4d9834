"""A shop: what its products bring in."""
