"""``python -m benchmarks.results``: writes docs/results.md from the JSON files, and nothing else.

Every figure on that page comes from a file under ``benchmarks/``; a part whose file is missing is
left out, so a page can be made at any time.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.page.claims import claims
from benchmarks.page.foreign import drift, transplant
from benchmarks.page.speed import controls, merging, spent, training
from benchmarks.page.vectors import CURVES, curve, rounding, vectors
from benchmarks.page.written import written


def main() -> None:
    """Write the page."""
    lines = [
        "# Results",
        "",
        "Written by `python -m benchmarks.results` from the JSON files under `benchmarks/`. The model is SmolLM2-135M-Instruct "
        "(the 4-bit weights that `pv-merge fetch` takes from the package index), all in float32 unless a table says otherwise.",
        "",
        "## Control curves",
        "",
        "Held-out pairs: log-prob of the chosen answer less that of the rejected one, by η.",
        "",
    ]
    for name, title in CURVES.items():
        lines += curve(name, title)
    lines += [
        *written(),
        *claims(),
        *vectors(),
        *transplant(),
        *drift(),
        *rounding(),
        *controls(),
        *merging(),
        *spent(),
        *training(),
    ]
    Path("docs/results.md").write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
