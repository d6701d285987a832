"""What follows from the angle between the two halves of a vector, in one line."""

from __future__ import annotations

OPPOSITE = -0.9
"""cos(+,−) up to which the halves count as one direction and its contrary."""
UNRELATED = 0.2
"""|cos(+,−)| up to which neither half says much of the other."""


def what_follows(cosine: float) -> str:
    """Return what cos(θ+ − base, θ− − base) means for the use of φ, without a full stop.

    >>> what_follows(-0.99).partition(":")[0]
    'nearly opposite'
    """
    if cosine <= OPPOSITE:
        return (
            "nearly opposite: φ is about twice its positive half, so the negative adds little that "
            "2η of the positive would not; more steps or a term of sft"
        )
    if cosine < -UNRELATED:
        return "opposed in part: the negative adds what the positive alone has not"
    if cosine <= UNRELATED:
        return (
            "hardly related: a negative η takes the positive away and adds something else; read its "
            "answers before you use it"
        )
    return "alike: what both halves learned cancels in φ, which is what sets them apart"
