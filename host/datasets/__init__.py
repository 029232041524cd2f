"""Data sets: by name, file or array; the readers of published files; downloads; and checks of their ranges."""
