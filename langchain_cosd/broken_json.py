"""Marks the arguments of a broken tool call in a stream, so that LangChain parses the call as invalid."""


def breaking_suffix(arguments: str) -> str:
    """A suffix that makes ``arguments``, which may be cut off anywhere, invalid for LangChain's parser.

    ``langchain_core.utils.json.parse_partial_json`` completes JSON that is cut off: ``AIMessageChunk`` would
    make a valid tool call of ``'{"city": "Os'``. It completes neither a closing bracket of the wrong kind nor
    one that nothing opened, so the suffix ends an open string and adds such a bracket.
    ``tests/langchain/test_broken_json.py`` pins this behaviour.
    """
    in_string = is_escaped = False
    open_brackets: list[str] = []
    for character in arguments:
        if in_string:
            in_string = character != '"' or is_escaped
            is_escaped = character == "\\" and not is_escaped
        elif character == '"':
            in_string = True
        elif character in "{[":
            open_brackets.append(character)
        elif character in "}]" and open_brackets:
            open_brackets.pop()
    bracket = "}" if open_brackets[-1:] == ["["] else "]"
    return ("\\" if is_escaped else "") + ('"' if in_string else "") + bracket
