"""States that go through their bytes, as they do when a job is restarted."""

from beam_pipelines.transforms.batches import from_bytes, to_bytes
from beam_pipelines.transforms.closing_state import NOTHING, ClosingState
from beam_pipelines.transforms.partition_state import Changes, EncodedState, PartitionState


class Restarts:
    """Encodes and decodes a state; only every so often whole, else as it was then and what it gained since."""

    def __init__(self, bar_ms: int, whole_every: int, prior: ClosingState = NOTHING) -> None:
        self._bar_ms, self._prior, self._whole_every = bar_ms, prior, whole_every
        self._saves = 0
        self._whole: EncodedState
        self._since = Changes()

    def restarted(self, state: PartitionState) -> PartitionState:
        """The same state, of which nothing but bytes was kept."""
        gained = state.drain()
        if self._saves % self._whole_every == 0:
            self._whole, self._since = state.encode(), Changes()
        else:
            seen, history, usual = ([*new, *old] for new, old in zip(gained, self._since, strict=True))
            through_bytes = [[from_bytes(to_bytes(batch)) for batch in part] for part in (history, usual)]
            self._since = Changes(seen, *through_bytes)
        self._saves += 1
        newest = self._whole._replace(open=state.encode_open())
        return PartitionState.decode(newest, self._bar_ms, self._prior, self._since)
