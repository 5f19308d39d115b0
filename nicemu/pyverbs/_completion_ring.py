"""The consumer's side of a CQ: taking entries out of the ring, and taking out those of a QP that was reset."""

from __future__ import annotations

import struct

from nicemu.abi.rings import CQE_BYTES, CQE_OWNER, CQE_QP_NUM
from nicemu.pyverbs._queues import RecvQueue, SendQueue
from nicemu.pyverbs._tag_ops import TagQueue
from nicemu.uverbs.messages import CqResponse

_CQE_SHIFT = CQE_BYTES.bit_length() - 1
_RETIRED = struct.Struct("<8xI16xI16xI")  # qp_num, opcode, wqe_counter
_RECEIVED = 128  # this bit of a completion's opcode says: receive queue
_QP_NUM = struct.Struct("<I")

Queues = tuple[SendQueue | None, RecvQueue | TagQueue | None]
_NO_QUEUES: Queues = (None, None)


class CompletionRing:
    """A CQ's ring. The entry at counter `n` is there when its owner word is the one of that pass over the ring.

    Owner words are compared by their low byte: they are 0 or 1.
    """

    __slots__ = ("_at", "_consumer", "_mask", "_owner", "_queues", "_record", "_ring", "_shift", "_slots")

    def __init__(self, response: CqResponse) -> None:
        self._record = response.record.cast("q")  # one store for the counter
        self._consumer = 0
        self.move(response)
        self._queues: dict[int, Queues] = {}

    def move(self, response: CqResponse) -> None:
        """Go on in another ring, which has what waits at the same counters."""
        self._ring = response.ring
        self._slots, self._mask = response.slots, response.slots - 1
        self._shift = response.slots.bit_length() - 1
        self._await()

    def serve(self, number: int, queues: Queues) -> None:
        """Completions of QP `number` free slots of these queues. Of an SRQ the device frees the slots; those of
        a TM-SRQ give tags back."""
        self._queues[number] = queues

    def nonempty(self) -> bool:
        """An entry waits."""
        return self._ring[self._at] == self._owner

    def _await(self) -> tuple[int, int]:
        """Note where the next entry's owner word is and what it will be: the timeline asks after each of its steps."""
        counter = self._consumer
        self._at = at = ((counter & self._mask) << _CQE_SHIFT) + CQE_OWNER
        self._owner = owner = (counter >> self._shift) + 1 & 1
        return at, owner

    def _is_there(self, counter: int) -> bool:
        at = ((counter & self._mask) << _CQE_SHIFT) + CQE_OWNER
        return self._ring[at] == ((counter >> self._shift) + 1 & 1)

    def take(self, limit: float) -> list[bytearray]:
        """Up to `limit` entries, as many as are there; the device may reuse their slots after `publish`. What they
        complete is free in its queue."""
        ring, queues = self._ring, self._queues
        entries: list[bytearray] = []
        at, owner = self._at, self._owner
        while len(entries) < limit and ring[at] == owner:
            entry = bytearray(ring[at - CQE_OWNER : at - CQE_OWNER + CQE_BYTES])
            entries.append(entry)
            self._consumer += 1
            at, owner = self._await()
            number, opcode, counter = _RETIRED.unpack_from(entry)
            queue = queues.get(number, _NO_QUEUES)[1 if opcode & _RECEIVED else 0]
            if queue is not None:
                queue.retire(counter)
        return entries

    def _free_tag(self, number: int, at: int) -> None:
        """An entry of a QP is dropped: the tag that it gives back is free all the same."""
        queue = self._queues.get(number, _NO_QUEUES)[1]
        if isinstance(queue, TagQueue):
            queue.retire(_RETIRED.unpack_from(self._ring, at)[2])

    def publish(self) -> None:
        """Tell the device how far the ring has been read."""
        self._record[0] = self._consumer

    def forget(self, number: int) -> None:
        """QP `number` is gone, its entries with it."""
        self.clean(number)
        self._queues.pop(number, None)

    def clean(self, number: int) -> None:
        """Drop the waiting entries of QP `number`.

        The producer's counter is the device's, so those that stay move towards it; the owner words stay where they are.
        """
        ring, mask = self._ring, self._mask
        counter = self._consumer
        while counter - self._consumer < self._slots and self._is_there(counter):
            counter += 1
        dropped = 0
        while counter > self._consumer:
            counter -= 1
            at = (counter & mask) << _CQE_SHIFT
            if _QP_NUM.unpack_from(ring[at : at + CQE_BYTES], CQE_QP_NUM)[0] == number:
                dropped += 1
                self._free_tag(number, at)
            elif dropped:
                to = (counter + dropped & mask) << _CQE_SHIFT
                ring[to : to + CQE_OWNER] = ring[at : at + CQE_OWNER]
        if dropped:
            self._consumer += dropped
            self._await()
            self.publish()
