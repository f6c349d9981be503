"""How chat models write tool calls and reasoning, without any framework."""
