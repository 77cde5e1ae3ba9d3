"""The files of verdicts: what is believed, what is not, and that nothing here can fail a call."""

import json
import os
import subprocess
import time

import pytest
from gpu_trials import FACTS, KEY, right

from fastrnn.kernels.gpu import kept, verdicts
from fastrnn.kernels.gpu.kept import Table

OTHER = KEY._replace(B=128)


def opened(root, facts=FACTS, **options):
    return Table.of(facts, True, root=root, shipped=root / "no such file", **options)


@pytest.fixture
def table(tmp_path):
    return opened(tmp_path)


@pytest.fixture
def file(table):
    """That of a verdict."""
    table.add(KEY, right())
    return table.folder / f"{KEY.name}.json"


def test_what_is_kept_is_read_by_others(table, tmp_path):
    table.add(KEY, right())
    table.add(OTHER, verdicts.wrong("it is off"))
    again = opened(tmp_path)
    assert again.known == table.known == {KEY: right(), OTHER: verdicts.wrong("it is off")}
    assert opened(tmp_path, FACTS | {"driver": "13"}).known == {}
    assert table.folder.stat().st_mode & 0o777 == 0o700


def test_a_file_is_readable(file):
    found = json.loads(file.read_text())
    assert found["key"]["cell"] == "lstm"
    assert found["made_on"] == FACTS


def test_in_vain_is_for_this_process_alone(table, tmp_path):
    table.add(KEY, None)
    assert table.known == {KEY: None}
    assert opened(tmp_path).known == {}


def test_what_holds_stays_in_this_process(table, tmp_path):
    """Whatever comes later is for the next: no engine changes in mid-training."""
    table.add(KEY, verdicts.wrong("no"))
    table.add(KEY, right())
    assert not table.known[KEY].right
    assert opened(tmp_path).known[KEY].right


DAMAGES = {
    "empty": lambda content: b"",
    "torn": lambda content: content[:-9],
    "garbled": lambda content: b"\0" + content,
    "a-list": lambda content: b"[]",
    "not-text": lambda content: b"\xff\xfe",
    "of-another-key": lambda content: content.replace(b'"B": 64', b'"B": 32'),
    "of-another-form": lambda content: content.replace(b'"right"', b'"wright"'),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_torn_or_foreign_is_made_anew(damage, file, tmp_path):
    file.write_bytes(damage(file.read_bytes()))
    again = opened(tmp_path)
    assert again.known == {}
    again.add(KEY, right())
    assert opened(tmp_path).known == {KEY: right()}


def test_others_can_write_there(file, tmp_path, capsys):
    file.parent.chmod(0o777)
    again = opened(tmp_path)
    again.add(OTHER, right())
    assert again.known == {OTHER: right()}
    assert len(list(file.parent.iterdir())) == 1
    assert "others own it" in capsys.readouterr().err


def test_a_file_that_others_can_write_to(file, tmp_path):
    file.chmod(0o666)
    assert opened(tmp_path).known == {}


def test_a_cache_that_cannot_be_written(tmp_path, capsys):
    """The verdict then holds for this process; that is said once."""
    (tmp_path / "gpu").write_text("a file where the folder should be")
    table = opened(tmp_path)
    for key in (KEY, OTHER):
        table.begin(key)
        table.add(key, right())
        table.end(key)
        assert not table.others_try(key)
    assert table.known == {KEY: right(), OTHER: right()}
    assert capsys.readouterr().err.count("not kept") == 1


def test_without_a_cache(tmp_path):
    table = Table.of(FACTS, True, root=None, shipped=tmp_path / "none")
    table.begin(KEY)
    table.add(KEY, right())
    table.end(KEY)
    assert table.known == {KEY: right()}
    assert not table.others_try(KEY)
    assert table.forget() == 0


def test_kernels_of_which_nothing_is_known_have_no_folder(tmp_path):
    table = opened(tmp_path, FACTS | {"kernels": None})
    assert table.folder is None
    assert table.tries


def test_two_writers_do_not_undo_each_other(table, tmp_path):
    another = opened(tmp_path)
    table.add(KEY, right())
    another.add(OTHER, right())
    another.add(KEY, right(3.0))
    assert opened(tmp_path).known == {KEY: right(3.0), OTHER: right()}
    assert {path.suffix for path in table.folder.iterdir()} == {".json"}


def mark(table, **changes):
    """The file of a trial under way, changed."""
    table.begin(KEY)
    path = table.folder / f"{KEY.name}.running"
    found = json.loads(path.read_text())
    assert found["pid"] == os.getpid()
    path.write_text(json.dumps(found | changes))
    return path


def ended_process():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


STALE = {
    "process-gone": lambda: {"pid": ended_process()},
    "long-ago": lambda: {"time": time.time() - kept.LATE - 1},
    "the-machine-too": lambda: {"boot": "another", "time": time.time() - kept.LATE - 1},
    "in-the-future": lambda: {"time": time.time() + 10 * kept.LATE},
}
FRESH = {
    "ours": dict,
    "another-machine": lambda: {"boot": "another", "pid": 1},
    "another-users": lambda: {"pid": 1},
}


@pytest.mark.parametrize("changes", STALE.values(), ids=STALE)
def test_a_trial_that_died_says_no(table, tmp_path, changes):
    path = mark(table, **changes())
    assert not table.others_try(KEY)
    found = opened(tmp_path).known[KEY]
    assert found.unseen
    assert "no: the process that tried it died" in found.serves(100)[1]
    path.unlink()
    assert opened(tmp_path).known == {}


@pytest.mark.parametrize("changes", FRESH.values(), ids=FRESH)
def test_a_trial_under_way_says_nothing(table, tmp_path, changes):
    mark(table, **changes())
    assert table.others_try(KEY)
    assert not table.others_try(OTHER)
    assert opened(tmp_path).known == {}
    table.end(KEY)
    assert not table.others_try(KEY)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1}'])
def test_a_mark_that_is_torn_says_nothing(table, tmp_path, content):
    mark(table).write_text(content)
    assert not table.others_try(KEY)
    assert opened(tmp_path).known == {}


def test_a_verdict_counts_for_more_than_a_mark(table, tmp_path):
    mark(table, pid=ended_process())
    table.add(KEY, right())
    assert opened(tmp_path).known == {KEY: right()}


def test_forgetting(table, tmp_path):
    mark(table)
    table.add(KEY, right())
    assert table.forget() == 2
    assert table.known == opened(tmp_path).known == {}


def test_what_is_shipped(tmp_path):
    """Counts where the same code runs on such a GPU; what this very one said counts for more."""
    shipped = tmp_path / "verdicts.json"
    shipped.write_text(verdicts.table([(FACTS, {KEY: right(), OTHER: right()})]))

    def found(**changes):
        return Table.of(FACTS | changes, True, root=tmp_path, shipped=shipped)

    found(driver="13").add(KEY, verdicts.wrong("off"))
    assert found(driver="13").known == {KEY: verdicts.wrong("off"), OTHER: right()}
    assert found().known == {KEY: right(), OTHER: right()}
    assert found(triton="3.8.0").known == {}


def test_what_ships_can_be_read():
    """Today nothing does."""
    if kept.SHIPPED.exists():
        Table.of(FACTS, True)


def test_pinned(tmp_path, table, capsys):
    """FASTRNN_GPU_VERDICTS: that file alone counts; nothing is tried, nothing kept."""
    table.add(OTHER, right())
    file = tmp_path / "table.json"
    file.write_text(verdicts.table([(FACTS, {KEY: right()})]))
    pinned = opened(tmp_path, pinned=str(file))
    assert pinned.known == {KEY: right()}
    assert not pinned.tries
    assert pinned.folder is None
    assert capsys.readouterr().err == ""
    assert opened(tmp_path, FACTS | {"gpu": "NVIDIA L4"}, pinned=str(file)).known == {}
    assert "nothing of this GPU" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, "", "{}", '{"fastrnn": 1}', '{"fastrnn": 1, "gpus": 3}'])
def test_a_pinned_file_that_cannot_be_read_is_an_error(tmp_path, content):
    file = tmp_path / "table.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ValueError, match=r"FASTRNN_GPU_VERDICTS: .*table\.json cannot be read"):
        opened(tmp_path, pinned=str(file))
