"""OpenAI's Responses API over the same planners and engines as chats.

``request`` turns a body into a chat's, ``items`` are those of its input, ``objects`` makes what is answered, ``events``
streams it, ``store`` remembers.
"""
