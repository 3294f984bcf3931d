"""Pure. The shape of what files say of room: what a host gives, what a workspace wants. `placement` reads what it
means."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from playground.spec.base import Shape
from playground.spec.machine_models import Memory
from playground.spec.policy_models import one_of

Cpus = Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)]
Kept = Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)]
Factor = Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]


class ReserveShape(Shape):
    """`reserve`: what a host keeps for its own work."""

    cpus: Kept | None = Field(default=None, description="processors that no workspace is given")
    memory: Memory | None = Field(default=None, description="memory that no workspace is given, as 2GiB")


class OvercommitShape(Shape):
    """`overcommit`: how many times over the rest is given."""

    cpus: Factor | None = Field(default=None, description="workspaces' processors for each of the host's")
    memory: Factor | None = Field(default=None, description="workspaces' memory for that of the host")


class SiteCapacityShape(Shape):
    """`capacity` of a site: for each host that says nothing else."""

    reserve: ReserveShape = ReserveShape()
    overcommit: OvercommitShape = OvercommitShape()


class CapacityShape(SiteCapacityShape):
    """`capacity` of a host."""

    cpus: Cpus | None = Field(default=None, description="what the host has; default: as its agent says")
    memory: Memory | None = Field(default=None, description="what the host has, as 32GiB; default: as its agent says")


class PreferShape(Shape):
    """`prefer`: what counts only where it can be had."""

    affinity: str | None = Field(default=None, description="a selector over labels of workspaces to be beside")
    anti_affinity: str | None = Field(default=None, description="a selector over labels of workspaces to be apart from")


class PlacementShape(Shape):
    """`placement` of a workspace: with which others of its playground it shares a host."""

    strategy: one_of("strategy", ("spread", "pack")) = Field(  # type: ignore[valid-type]
        default="spread", description="spread: where fewest of the playground are; pack: where most are"
    )
    affinity: str | None = Field(default=None, description="a selector: only where one of these workspaces is")
    anti_affinity: str | None = Field(default=None, description="a selector: only where none of these workspaces is")
    prefer: PreferShape = PreferShape()
