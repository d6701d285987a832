"""The results page, a part for each kind of figure."""
