"""The model card, from Jinja templates."""
