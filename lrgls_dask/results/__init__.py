"""What a fit says: its parts, tables, pages, files; comparison of fits."""
