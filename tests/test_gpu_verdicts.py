"""Verdicts on calls of the GPU engine: plain values."""

import json

import pytest
from gpu_trials import FACTS, KEY, right, speed

from fastrnn.kernels.gpu import verdicts
from fastrnn.kernels.gpu.verdicts import MOST, Timed, Verdict, batch_class


def test_batches_by_powers_of_two():
    assert [batch_class(B) for B in (1, 2, 3, 33, 64, 65, 4097, 10**6)] == [
        1, 2, 4, 64, 64, 128, MOST, MOST,
    ]  # fmt: skip


@pytest.mark.parametrize("name", KEY._fields)
def test_every_field_tells_keys_apart(name):
    """A file is one key's; a fact is one folder's."""
    other = KEY._replace(**{name: None})
    assert other.name != KEY.name
    assert len(KEY.name) == 24


@pytest.mark.parametrize("name", FACTS)
def test_every_fact_tells_gpus_apart(name):
    assert verdicts.digest(FACTS | {name: "other"}) != verdicts.digest(FACTS)
    assert verdicts.digest(dict(reversed(FACTS.items()))) == verdicts.digest(FACTS)


def test_what_is_wrong_never_serves():
    served, why = verdicts.wrong("d x is off").serves(1000)
    assert not served
    assert why == f"no: d x is off (tried {verdicts.today()})"


@pytest.mark.parametrize(
    ("verdict", "T", "served"),
    [
        (right(), 100, True),
        (right(), None, True),
        (right(few=1.06, many=1.06), 100, True),
        (right(few=1.04, many=1.04), 100, False),
        (right(won=0.8), 100, True),
        (right(won=0.79), 100, False),
        (right(few=0.9, many=2.0), 32, False),  # it takes longer to begin
        (right(few=0.9, many=2.0), 10, False),
        (right(few=0.9, many=2.0), 256, True),
        (right(few=0.9, many=2.0), None, False),
        (right(few=2.0, many=0.9), 32, True),  # and each step of it is slower
        (right(few=2.0, many=0.9), 256, False),
        (right(few=2.0, many=1.1), 256, True),
        (right(few=4.0, many=1.2), 5000, False),
        (right(few=4.0, many=1.2), None, False),
    ],
)
def test_the_length_decides(verdict, T, served):
    assert verdict.serves(T)[0] is served


def test_between_two_lengths_both_races_count():
    few, many = speed()
    verdict = Verdict(True, "", (few._replace(won=0.5), many), "2026-01-02")
    assert [verdict.serves(T)[0] for T in (10, 32, 100, 255, 256, 1000)] == [False] * 4 + [True] * 2


def test_the_reason_has_ratio_and_date():
    assert right(1.5, 1.5).serves(64) == (True, "1.50x as fast as otherwise, proven 2026-01-02")
    assert right(1.0, 1.0).serves(64) == (
        False, "right, but not surely faster: 1.00x as fast as otherwise (tried 2026-01-02)",
    )  # fmt: skip


@pytest.mark.parametrize("key", [KEY, KEY._replace(backward=None, training=False)])
@pytest.mark.parametrize("verdict", [right(), verdicts.wrong("it hangs")])
def test_as_json(key, verdict):
    entry = json.loads(json.dumps(verdicts.written(key, verdict)))
    assert verdicts.read(entry) == (key, verdict)
    assert verdicts.read(entry)[0].name == key.name


ENTRY = verdicts.written(KEY, right())
FEW = ENTRY["verdict"]["speed"][0]


def changed(part, **fields):
    return ENTRY | {part: ENTRY[part] | fields}


BAD = {
    "nothing": {},
    "no-key": {"verdict": ENTRY["verdict"]},
    "a-field-more": changed("key", nothing=1),
    "a-field-less": ENTRY | {"key": {k: v for k, v in ENTRY["key"].items() if k != "B"}},
    "tiles": changed("key", forward=["x"]),
    "maybe-right": changed("verdict", right=1),
    "no-times": changed("verdict", speed=[]),
    "one-time-twice": changed("verdict", speed=[FEW, FEW]),
    "words-for-times": changed("verdict", speed=[dict.fromkeys(Timed._fields, "x")] * 2),
    "a-list": [],
    "none": None,
}


@pytest.mark.parametrize("entry", BAD.values(), ids=BAD)
def test_anything_else_is_refused(entry):
    with pytest.raises(ValueError, match=r"."):
        verdicts.read(entry)


def test_tables():
    """Of GPUs on which the same code runs alike; whatever else is there."""
    other = KEY._replace(B=128)
    text = verdicts.table(
        [
            (FACTS | {"driver": "13000", "cudnn": 9}, {KEY: right(), other: None}),
            (FACTS | {"gpu": "NVIDIA L4"}, {other: right()}),
        ]
    )
    assert verdicts.of_table(text, FACTS) == {KEY: right()}
    for name in verdicts.OF_CODE:
        assert verdicts.of_table(text, FACTS | {name: "other"}) == {}
    for text in ("[]", "{}", '{"fastrnn": 2, "gpus": []}', "{"):
        with pytest.raises(ValueError, match=r"table|Expecting"):
            verdicts.of_table(text, FACTS)
