"""Training of policies: supervised fine-tuning, and DPO in both polarities."""
