"""Colours of messages: no two of one sender, or to one receiver, have the same."""

import numpy as np
from numpy.typing import NDArray

from gmc_jax.graphs.sparse_matrix import SparseMatrix

# Receivers that the search for near ones may try: those of about a second.
MOST_TRIED = 2**20


def near_colours(messages: SparseMatrix, colours: int) -> NDArray[np.int64] | None:
    """Finds one perfect matching after another, with near receivers first.

    In a matching one sender after another is placed: it takes the nearest receiver from
    whose present sender a path leads to a free one. Depth comes first. No receiver is
    tried twice for one sender.

    Args:
      messages: as many of each sender, and to each receiver, as there are colours; of
        one sender in the order of their receivers, itself, then the next worker, and
        so on. A receiver may come several times.
      colours: how many there are.

    Returns:
      The colour of each message, or None if more than `MOST_TRIED` receivers would be
      tried.
    """
    workers = messages.workers
    rows = messages.receivers.reshape(workers, colours)
    # As long as the nearest receivers are all different, each sender takes its own.
    done = 0
    for nearest in np.ascontiguousarray(rows.T):
        if np.bincount(nearest, minlength=workers).max() > 1:
            break
        done += 1
    if workers * (colours - done) > MOST_TRIED:
        return None
    found = np.tile(np.arange(colours), (workers, 1))
    search = _Search(rows[:, done:])
    for colour in range(done, colours):
        receiver_of = search.matching()
        if receiver_of is None:
            return None
        for sender, receiver in enumerate(receiver_of):
            found[sender, done + search.take(sender, receiver)] = colour
    return found.ravel()


class _Search:
    """The messages that have no colour yet, and how many receivers were tried."""

    def __init__(self, rows: NDArray[np.int32]):
        self._rows = rows.tolist()
        self._tried = 0
        # Of each sender the receivers that are left, as bits.
        self._left = [sum(1 << receiver for receiver in {*row}) for row in self._rows]
        # Where the next message of a sender to a receiver stands in its row.
        self._next = [
            {row[at]: at for at in reversed(range(len(row)))} for row in self._rows
        ]

    def matching(self) -> list[int] | None:
        """The receiver of each sender, or None if more receivers were tried."""
        workers = len(self._rows)
        receiver_of, sender_of = [-1] * workers, [-1] * workers
        for first in range(workers):
            path, receivers = [first], []
            untried = (1 << workers) - 1
            while True:
                sender = path[-1]
                candidates = self._left[sender] & untried
                if not candidates:  # A dead end.
                    path.pop()
                    receivers.pop()
                    continue
                if from_here := candidates >> sender:
                    receiver = sender + _lowest(from_here)
                else:
                    receiver = _lowest(candidates)
                untried ^= 1 << receiver
                self._tried += 1
                receivers.append(receiver)
                if sender_of[receiver] < 0:
                    break
                path.append(sender_of[receiver])
            for sender, receiver in zip(path, receivers, strict=True):
                receiver_of[sender], sender_of[receiver] = receiver, sender
            if self._tried > MOST_TRIED:
                return None
        return receiver_of

    def take(self, sender: int, receiver: int) -> int:
        """Takes a message out; returns where it stands in the row of its sender."""
        row, at = self._rows[sender], self._next[sender][receiver]
        if row[at + 1 : at + 2] == [receiver]:
            self._next[sender][receiver] = at + 1
        else:
            self._left[sender] ^= 1 << receiver
        return at


def alternating_colours(messages: SparseMatrix, colours: int) -> NDArray[np.int64]:
    """Colours one message after another, along alternating paths (Koenig).

    A message takes the first colour that neither its sender nor its receiver has. If
    there is none, a is the first colour that the sender lacks, and b the first that the
    receiver lacks. From the receiver on, messages have the colours a, b, a, b, ... in
    turn, until they end; the path cannot come to the sender. All of them change their
    colour, so that the receiver lacks a, too.

    Args:
      messages: at most as many of each sender, and to each receiver, as there are
        colours; no two with the same ends.
      colours: how many there are.

    Returns:
      The colour of each message.
    """
    workers = messages.workers
    # Of each sender, and after them of each receiver: the colours that it lacks, as
    # bits, and the message of each colour that it has.
    lacks = [(1 << colours) - 1] * (2 * workers)
    message_of: list[dict[int, int]] = [{} for _ in lacks]
    senders, receivers = messages.senders.tolist(), messages.receivers.tolist()
    ends = [(s, workers + r) for s, r in zip(senders, receivers, strict=True)]
    found = [-1] * len(ends)

    def swap(node: int, one: int, other: int) -> None:
        """Swaps two colours on the path from a node that has `one` and not `other`."""
        both, path, wanted = 1 << one | 1 << other, [], one
        lacks[node] ^= both
        while wanted in message_of[node]:
            path.append(message_of[node][wanted])
            node = sum(ends[path[-1]]) - node
            wanted = one + other - wanted
        lacks[node] ^= both
        for message in path:
            for node in ends[message]:
                del message_of[node][found[message]]
        for message in path:
            found[message] = one + other - found[message]
            for node in ends[message]:
                message_of[node][found[message]] = message

    for message, (sender, receiver) in enumerate(ends):
        if not lacks[sender] & lacks[receiver]:
            swap(receiver, _lowest(lacks[sender]), _lowest(lacks[receiver]))
        colour = _lowest(lacks[sender] & lacks[receiver])
        found[message] = colour
        for node in ends[message]:
            lacks[node] ^= 1 << colour
            message_of[node][colour] = message
    return np.array(found, np.int64)


def _lowest(bits: int) -> int:
    """The lowest bit that is set."""
    return (bits & -bits).bit_length() - 1
