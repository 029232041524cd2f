"""Technologies, one module per family; `catalogue.py` lists them."""
