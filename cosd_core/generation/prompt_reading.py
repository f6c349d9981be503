"""Long prompts are read in chunks, between which other batches have their turns."""

from collections.abc import Sequence

from cosd_core.models.base import Rows, Session


class PromptReading:
    """How far the sessions of a batch have read its long prompts.

    Attributes:
        chunk_size: About how many ids of prompts a model processes in one turn of the batch.
        unread: The sessions that have more than a chunk before them.
    """

    def __init__(self, sessions: Sequence[Session], chunk_size: int) -> None:
        """All of these sessions have prompts before them."""
        self.chunk_size = chunk_size
        self.unread = set(sessions)
        self._unshared = set(sessions)

    def read_chunk(self, session: Session, rows: Rows) -> bool:
        """Have a session read a chunk; false if the next pass can process all that is left."""
        if session in self.unread and session.read(rows, self.chunk_size):
            self.unread.discard(session)
        return session in self.unread

    def share(self) -> None:
        """Let other batches, which wait for their turn to read, begin where these prompts begin alike."""
        for session in self._unshared - self.unread:
            session.share()
        self._unshared &= self.unread
