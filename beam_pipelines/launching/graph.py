"""What a graph keeps as state, by which one job can go on from another's savepoint."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.portability.api import beam_runner_api_pb2, schema_pb2

__all__ = ["Step", "Steps", "differences", "stateful_steps"]

_PARDO, _ROW = "beam:transform:pardo:v1", "beam:coder:row:v1"


class Step(NamedTuple):
    """A stateful step; what is not equal in two graphs is not one step's state."""

    reads: str  # what Flink finds its state by
    key: str  # and value: the coder of what it reads
    states: Mapping[str, str]  # kind and coder, by name
    timers: Mapping[str, str]  # clock and coder, by name


Steps = Mapping[str, Step]
"""The stateful steps of a graph, by their unique names."""


def stateful_steps(pipeline: beam.Pipeline) -> Steps:
    """The stateful steps of a pipeline, by name.  What they say of it is the same in every process."""
    components = pipeline.to_runner_api().components
    return {
        transform.unique_name: step
        for transform in sorted(components.transforms.values(), key=lambda it: it.unique_name)  # a map has no order
        if transform.spec.urn == _PARDO and (step := _step_of(transform, components))
    }


def _step_of(transform: Any, components: Any) -> Step | None:
    payload = beam_runner_api_pb2.ParDoPayload.FromString(transform.spec.payload)
    if not payload.state_specs and not payload.timer_family_specs:
        return None
    timers = payload.timer_family_specs
    sides = set(payload.side_inputs)
    (read,) = (components.pcollections[it] for tag, it in transform.inputs.items() if tag not in sides)
    clock = beam_runner_api_pb2.TimeDomain.Enum.Name
    return Step(
        read.unique_name,
        _coder(read.coder_id, components),
        {name: _state(payload.state_specs[name], components) for name in sorted(payload.state_specs)},
        {
            name: f"{clock(timers[name].time_domain)} {_coder(timers[name].timer_family_coder_id, components)}"
            for name in sorted(timers)
        },
    )


def _state(spec: Any, components: Any) -> str:
    """Its kind and coders; a combining one's function is code, which may change."""
    kind = spec.WhichOneof("spec")
    fields = getattr(spec, kind).ListFields()
    coders = [_coder(value, components) for field, value in fields if field.name.endswith("coder_id")]
    return f"{kind.removesuffix('_spec')} of {', '.join(coders)}"


def _coder(id: str, components: Any) -> str:  # noqa: A002
    coder = components.coders[id]
    payload = _without_ids(coder.spec.payload) if coder.spec.urn == _ROW else coder.spec.payload
    inner = [_coder(it, components) for it in coder.component_coder_ids]
    name = coder.spec.urn.removeprefix("beam:coder:") + (f":{payload.hex()}" if payload else "")
    return f"{name}({', '.join(inner)})" if inner else name


def _without_ids(payload: bytes) -> bytes:
    """A schema without the ids that Beam draws anew in each process."""
    schema = schema_pb2.Schema.FromString(payload)
    _clear_ids(schema)
    return schema.SerializeToString(deterministic=True)


def _clear_ids(message: Any) -> None:
    for field, value in message.ListFields():
        if isinstance(message, schema_pb2.Schema) and field.name == "id":
            message.ClearField("id")
        elif field.message_type:
            many = field.label == field.LABEL_REPEATED
            for inner in value if many else [value]:
                if hasattr(inner, "ListFields"):
                    _clear_ids(inner)


def differences(old: Steps, new: Steps, may_forget: bool = False) -> list[str]:
    """Why a job with the new graph cannot go on from the state of one with the old: a sentence each; none: it can.

    Args:
      old: whose state there is.
      new: which is to go on from it; steps that it alone has begin anew.
      may_forget: whether the state of steps that are gone may be lost.
    """
    told = []
    for name, step in old.items():
        if name in new:
            told += _changes(name, step, new[name])
        elif not may_forget:
            told.append(
                f"step {name} keeps state and is gone: give again what it came from, such as an output, or the option "
                "allow_non_restored_state to forget it"
            )
    return told


def _changes(name: str, old: Step, new: Step) -> list[str]:
    told = []
    if old.reads != new.reads:
        told.append(f"step {name} reads {new.reads} in place of {old.reads}, by which Flink finds its state")
    if old.key != new.key:
        told.append(f"step {name} reads elements of another coder")
    for what, before, now in (("state", old.states, new.states), ("timer", old.timers, new.timers)):
        for key in sorted({*before, *now}):
            if before.get(key) != now.get(key):
                how = "is gone" if key not in now else "is new" if key not in before else "has another kind or coder"
                told.append(f"the {what} {key} of step {name} {how}")
    return told
