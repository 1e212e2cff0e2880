"""A bounded queue between two threads, which either thread can close."""

from __future__ import annotations

from collections import deque
from threading import Condition
from typing import Generic, TypeVar

T = TypeVar("T")


class Channel(Generic[T]):
    """A first-in, first-out queue of at most `capacity` items.

    `put` waits while the queue is full; with `drop_oldest` it discards the oldest item instead and counts it in
    `dropped`. `added` counts all items that were put in. Every method may be called from any thread.
    """

    def __init__(self, capacity: int, *, drop_oldest: bool = False) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity}")
        self.added = self.dropped = 0
        self._capacity = capacity
        self._drop_oldest = drop_oldest
        self._items: deque[T] = deque()
        self._closed = False
        self._changed = Condition()

    def put(self, item: T) -> bool:
        """Add an item and return True; return False without adding it if the channel is closed."""
        with self._changed:
            if self._drop_oldest and not self._closed and len(self._items) == self._capacity:
                self._items.popleft()
                self.dropped += 1
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._capacity)
            if self._closed:
                return False
            self._items.append(item)
            self.added += 1
            self._changed.notify_all()
            return True

    def has_item(self, *, wait: bool) -> bool:
        """Return whether there is an item; with `wait`, wait for one until the channel is closed."""
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._closed or bool(self._items))
            return bool(self._items)

    def get(self) -> T | None:
        """Remove and return the oldest item, waiting for one; None if the channel is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or bool(self._items))
            if not self._items:
                return None
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self, *, discard: bool = False) -> None:
        """Accept no more items; those in the queue can still be read, unless `discard` removes them."""
        with self._changed:
            self._closed = True
            if discard:
                self._items.clear()
            self._changed.notify_all()
