"""Types for collections that have none: tagged outputs, and keys that a transform is told."""

import apache_beam as beam
from apache_beam.typehints.native_type_compatibility import convert_to_beam_type

__all__ = ["of_type", "typed"]


def of_type(output: beam.PCollection, hint: object) -> beam.PCollection:
    """A tagged output, whose type Beam lets nobody declare: the type decides its coder (of record batches: Arrow).

    It has one even where its elements never leave a process: Beam encodes some of them to tell how large they are.
    """
    output.element_type = convert_to_beam_type(hint)
    return output


def typed(hint: object) -> beam.PTransform:
    """Gives the elements their type, and with it their coder."""
    return beam.Map(_itself).with_output_types(hint)


def _itself(element: object) -> object:
    return element
