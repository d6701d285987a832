"""``python -m trainers``, for launchers such as ``accelerate launch -m trainers``."""

from trainers.cli import main

main(prog_name="pv-train")
