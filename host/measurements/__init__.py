"""Measurements of others: tables of failing cells become memory profiles (`weakcell characterize --import FILE`)."""
