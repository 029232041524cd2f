"""One file per technology; `catalogue.py` lists them."""
