"""Compiled code on disk: what is believed, what is not, and that nothing here can fail a call."""

import os
import pwd
import resource
import sys
from pathlib import Path

import pytest

from fastrnn.kernels.cpu.compiler import cache

KEY, PAYLOAD = "0123abcd", b"code" * 1000


@pytest.fixture
def root(tmp_path):
    """A cache in which ``KEY`` is kept."""
    cache.write(tmp_path / "root", KEY, PAYLOAD)
    return tmp_path / "root"


@pytest.fixture
def stranger(monkeypatch):
    """Makes this process one of another user, who is not root either."""
    owner = os.geteuid() or 12345

    def disown(path):
        os.chown(path, owner, -1)
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)

    return disown


def mode(path):
    return path.lstat().st_mode & 0o777


def test_what_is_written_is_read(root):
    assert cache.read(root, KEY) == PAYLOAD
    assert cache.read(root, "absent") is None
    cache.write(root, KEY, b"")
    assert cache.read(root, KEY) == b""


@pytest.mark.parametrize("umask", [0, 0o022, 0o277, 0o777], ids=oct)
def test_private_whatever_the_umask(umask, tmp_path):
    root = tmp_path / "a" / "b" / "c"
    before = os.umask(umask)
    try:
        cache.write(root, KEY, PAYLOAD)
    finally:
        os.umask(before)
    assert [mode(path) for path in (root, root.parent, root.parent.parent)] == [0o700] * 3
    assert [mode(path) for path in root.iterdir()] == [0o600]
    assert cache.read(root, KEY) == PAYLOAD


DAMAGES = {
    "empty": lambda content: b"",
    "torn-in-the-hash": lambda content: content[:20],
    "hash-alone": lambda content: content[: cache.HASH],
    "torn": lambda content: content[:-1],
    "longer": lambda content: content + b"\0",
    "hash-garbled": lambda content: b"\0" + content[1:],
    "garbled": lambda content: content[:-1] + b"\0",
    "zeros": lambda content: bytes(len(content)),
    "pickle": lambda content: b"\x80\x04cos\nsystem\n.",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_files_are_as_good_as_none(damage, root):
    file = root / KEY
    file.write_bytes(damage(file.read_bytes()))
    assert cache.read(root, KEY) is None
    cache.write(root, KEY, PAYLOAD)
    assert cache.read(root, KEY) == PAYLOAD


def test_the_file_of_another_key_is_not_believed(root):
    (root / KEY).rename(root / "another")
    assert cache.read(root, "another") is None


def put_link(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def put_pipe(path):
    path.unlink()
    os.mkfifo(path)


def put_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("put", [put_link, put_pipe, put_folder])
def test_only_plain_files_are_read(put, root):
    put(root / KEY)
    assert cache.read(root, KEY) is None
    cache.write(root, KEY, b"new")
    assert cache.read(root, KEY) == (None if put is put_folder else b"new")
    assert {path.name for path in root.iterdir()} <= {KEY, "elsewhere"}


@pytest.mark.parametrize("bits", [0o720, 0o702, 0o777], ids=oct)
def test_others_can_write_to_the_folder(bits, root, capsys):
    root.chmod(bits)
    assert cache.read(root, KEY) is None
    cache.write(root, "another", PAYLOAD)
    assert [path.name for path in root.iterdir()] == [KEY]
    cache.read(root, KEY)
    said = capsys.readouterr().err
    assert said.count("warning") == 1
    assert str(root) in said
    assert "others" in said


def test_others_own_the_folder(root, stranger, capsys):
    stranger(root)
    assert cache.read(root, KEY) is None
    cache.write(root, "another", PAYLOAD)
    assert [path.name for path in root.iterdir()] == [KEY]
    assert "others own it" in capsys.readouterr().err


def test_others_own_the_file_or_can_write_to_it(root, stranger, monkeypatch):
    (root / KEY).chmod(0o622)
    assert cache.read(root, KEY) is None
    (root / KEY).chmod(0o644)
    assert cache.read(root, KEY) == PAYLOAD
    stranger(root / KEY)
    monkeypatch.setattr(os, "geteuid", lambda: root.stat().st_uid)
    assert (cache.read(root, KEY) is None) is (os.getuid() == 0)  # only root can give it away


def test_a_link_is_as_good_as_the_folder_it_leads_to(root, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(root)
    assert cache.read(link, KEY) == PAYLOAD
    root.chmod(0o777)
    assert cache.read(link, KEY) is None


def test_a_link_to_nowhere(tmp_path, capsys):
    (tmp_path / "link").symlink_to("nowhere")
    cache.write(tmp_path / "link", KEY, PAYLOAD)
    assert cache.read(tmp_path / "link", KEY) is None
    assert "not kept" in capsys.readouterr().err


def test_a_full_disk(root, capsys):
    """Here, a limit on the length of a file: what was there remains, and nothing half made."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, limits[1]))
    try:
        cache.write(root, KEY, PAYLOAD * 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "not kept" in capsys.readouterr().err
    assert [path.name for path in root.iterdir()] == [KEY]
    assert cache.read(root, KEY) == PAYLOAD


def test_no_such_folder_can_be(capsys):
    assert cache.read(Path("/dev/null/cache"), KEY) is None
    cache.write(Path("/dev/null/cache"), KEY, PAYLOAD)
    assert capsys.readouterr().err.count("\n") == 1


def test_a_path_that_is_too_long(tmp_path, capsys):
    deep = tmp_path.joinpath(*["a"] * 3000)
    cache.write(deep, "key", b"code")
    assert cache.read(deep, "key") is None
    assert "is not kept" in capsys.readouterr().err
    # a thousand folders in each other would be left, which pytest itself cannot remove
    assert not list(tmp_path.iterdir())


def test_where_code_is_kept(monkeypatch, tmp_path, capsys):
    root = cache.default_root.__wrapped__
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("FASTRNN_CACHE_DIR", "relative")
    assert root() == tmp_path / "relative"
    monkeypatch.setenv("FASTRNN_CACHE_DIR", "")
    assert root() == Path("/xdg/fastrnn")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert root() == Path("/home/me/.cache/fastrnn")


def test_no_home_folder(monkeypatch, capsys):
    def nobody(uid):
        raise KeyError(uid)

    root = cache.default_root.__wrapped__
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("FASTRNN_CACHE_DIR", "/mine")
    assert root() == Path("/mine")
    monkeypatch.delenv("FASTRNN_CACHE_DIR")
    assert root() is None
    assert "FASTRNN_CACHE_DIR" in capsys.readouterr().err


class Raises:
    def write(self, text):
        raise RuntimeError("no output here")


def broken_pipe(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def closed(tmp_path):
    stream = full(tmp_path)
    stream.close()
    return stream


def full(tmp_path):
    return os.fdopen(os.open("/dev/full", os.O_WRONLY), "w")


STREAMS = {
    "none": lambda tmp_path: None,
    "closed": closed,
    "full": full,
    "broken-pipe": broken_pipe,
    "an-object-that-raises": lambda tmp_path: Raises(),
}


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # when collected
def test_output_fails_nothing(stream, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream(tmp_path))
        cache.say(f"a line for {tmp_path}")
    assert capsys.readouterr() == ("", "")
