"""Other programs that carry preference vectors."""
