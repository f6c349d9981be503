"""Chats: how models are shown them, and how their answers are read."""

from cosd_core.chat.messages import Chat
from cosd_core.chat.turn import Turn

__all__ = ["Chat", "Turn"]
