"""Text to syntax tree and back.

``source`` holds the text and its spans, ``ast`` the nodes, ``parser`` turns text into nodes and
``formatter`` prints them canonically. Nothing is imported here: the diagnostics need ``source`` alone,
and lark is loaded only once something is parsed.
"""
