"""The soak, for some seconds; and that it sees what is wrong."""

import random
import re

import pytest
import soak
from conftest import run_python

SHORT = """
import sys, soak

sys.argv[1:] = ["--minutes", "0.1", "--seed", "3"]
sys.exit(soak.main())
"""


def test_some_seconds_of_it():
    said, _ = run_python(SHORT, timeout=200)
    last = said.splitlines()[-1]
    assert int(re.fullmatch(r"nothing wrong in (\d+) calls.*", last)[1]) > 0


def test_it_sees_a_wrong_number():
    case = soak.Case(random.Random(1))
    case.check(2)
    case.expected[-1].view(-1)[0] += 1e-3
    with pytest.raises(soak.Wrong, match="on 2 threads differs"):
        case.check(2)


def test_it_sees_a_child_that_fails():
    now = soak.Round([soak.Case(random.Random(1))], random.Random(1), soak.Alarm())
    cases, _ = now.jobs[0]
    cases[0].expected[0].view(-1)[0] += 1
    with pytest.raises(soak.Wrong, match="status 256"):
        now.fork(cases, random.Random(1))
