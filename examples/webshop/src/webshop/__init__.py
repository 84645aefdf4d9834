"""A small web shop: products, orders and a sales report."""

__version__ = "0.1.0"
