"""Compiled code on disk: a file for each key, in a folder that is this user's alone (private.py).

What is read from here is executed. A file begins with a hash of its key and of all that follows, so
one that is torn, empty, or another's is as good as none.

Whatever goes wrong here costs the time of compiling anew, and is said once.
"""

import hashlib

from ... import private
from ...private import default_root, say

__all__ = ["default_root", "read", "say", "write"]
HASH = hashlib.sha256().digest_size


def read(root, key):
    """The bytes that ``write`` has put there, or None."""
    try:
        content = private.read(root, key)
    except FileNotFoundError:
        return None
    except OSError as error:
        _give_up(root, error)
        return None
    payload = content[HASH:]
    return payload if content == _sealed(key, payload) else None


def write(root, key, payload):
    """Keep bytes, if that can be done: whole, or not at all."""
    try:
        private.write(root, key, _sealed(key, payload))
    except OSError as error:
        _give_up(root, error)


def _give_up(root, error):
    say(f"warning: compiled code is not kept in {root}: {error.strerror or error}")


def _sealed(key, payload):
    return hashlib.sha256(key.encode() + b"\n" + payload).digest() + payload
