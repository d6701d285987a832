"""A page in the browser: base and mix side by side, with a slider for each preference."""
