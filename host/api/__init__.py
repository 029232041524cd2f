"""The functions and results that `weakcell` exports; every module of this package is re-exported by name there."""
