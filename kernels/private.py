"""Files that are this user's alone: compiled code, which is executed, and what GPUs have proven.

Nothing is believed that somebody else may have written. A folder and each file in it must be this
user's or root's, and nobody else may write to them. That is asked of what has been opened, never of
a path: whoever can rename a parent, or lay a symbolic link, can only lead to another folder of this
user's.
"""

import os
import secrets
import stat
import sys
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path


@cache
def say(text):
    """A line on stderr, once a process; nothing where stderr cannot take it.

    It may be closed, full, a broken pipe, or whatever object the program has put there: none of
    this is a reason not to compute.
    """
    if sys.stderr is not None:
        with suppress(Exception):
            print(f"fastrnn: {text}", file=sys.stderr, flush=True)


@cache
def default_root():
    """Where files are kept: $FASTRNN_CACHE_DIR, or fastrnn/ in the user's cache folder.

    None, said aloud, where there is no such place.
    """
    try:
        told = os.environ.get("FASTRNN_CACHE_DIR")
        base = told or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(base if told else Path(base, "fastrnn")).absolute()
    except (RuntimeError, OSError) as error:  # no home folder, no current folder
        say(f"nothing is kept on disk: {error}; FASTRNN_CACHE_DIR can say where to")
        return None


def read(root, name):
    """What a file holds; nothing if it is absent, no plain file, or not safe.

    Raises OSError for a folder that is absent or not safe, as all functions here do.
    """
    with _opened(root) as folder:
        return _content(folder, name)


def write(root, name, content):
    """Keep bytes: whole, or not at all. The folder is made if need be."""
    _make(root)
    with _opened(root) as folder:
        _put(folder, name, content)


def names(root):
    """The files of a folder."""
    with _opened(root) as folder:
        return sorted(os.listdir(folder))


def remove(root, name):
    """Have no file by that name."""
    with _opened(root) as folder, suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def _trusted(status):
    """Whether only this user, or root, can have written to what has this status."""
    mine = status.st_uid in (0, os.geteuid())
    return mine and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


@contextmanager
def _opened(root):
    """A descriptor of the folder, in which files are then named; OSError if it is not safe."""
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not _trusted(os.fstat(folder)):
            raise PermissionError(
                "others own it or can write to it (it should be yours, with mode 0700)"
            )
        yield folder
    finally:
        os.close(folder)


def _make(folder):
    """Make a folder and its parents, 0700 whatever the umask; those that exist stay as they are.

    The whole path is asked for first: one that no system call takes leaves no parents behind.
    """
    missing = []
    for each in (folder, *folder.parents):
        try:
            os.stat(each)
            break
        except FileNotFoundError:
            missing.append(each)
    for each in reversed(missing):
        with suppress(FileExistsError):  # another process was faster
            each.mkdir(0o700)
            each.chmod(0o700)


def _content(folder, name):
    """What a file holds; nothing if it is absent, no plain file, or not safe."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe is not waited for
    try:
        file = os.open(name, flags, dir_fd=folder)
    except OSError:
        return b""
    try:
        status = os.fstat(file)
        if not (stat.S_ISREG(status.st_mode) and _trusted(status)):
            return b""
        with open(file, "rb", closefd=False) as stream:
            return stream.read()
    finally:
        os.close(file)


def _put(folder, name, content):
    """Write a file under a name of its own, then give it the one it is looked for by."""
    new = f"{name}.{secrets.token_hex(8)}"
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
    try:
        with open(file, "wb") as stream:
            os.fchmod(file, 0o600)
            stream.write(content)
        os.replace(new, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.unlink(new, dir_fd=folder)
        raise
