"""Pure. Decides what an accepted file means: claims, records and steps. Reads no store and writes none."""

from playground.admit.admission import admit, remove
from playground.admit.known import Admission, Known
from playground.plan import Step

__all__ = ["Admission", "Known", "Step", "admit", "remove"]
