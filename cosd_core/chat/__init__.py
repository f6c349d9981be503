"""Chats: rendering them for models and parsing the answers."""

from cosd_core.chat.messages import Chat
from cosd_core.chat.turn import Turn

__all__ = ["Chat", "Turn"]
