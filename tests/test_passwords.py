import os

import pytest

from segnet import passwords
from segnet.errors import UserError

HOST = "postgresql://me@host:5432/db"


@pytest.fixture(autouse=True)
def nothing_there(monkeypatch):
    monkeypatch.delenv(passwords.KEY, raising=False)


@pytest.mark.parametrize(
    ("word", "left", "secret"),
    [
        ("storage=postgresql://me:pw@host:5432/db", f"storage={HOST}", "pw"),
        ("+storage=postgresql://me:pw@host:5432/db", f"+storage={HOST}", "pw"),
        ("storage='postgresql://me:pw@host:5432/db'", f"storage='{HOST}'", "pw"),
        ("storage=postgresql+psycopg://me:p%40s%2Fs+x@h/db", "storage=postgresql+psycopg://me@h/db", "p@s/s+x"),
        ("storage=postgresql://me:p@s:s@h/db", "storage=postgresql://me@h/db", "p@s:s"),  # not quoted as it should be
        ("storage=postgresql://me:pw?x@h/db", "storage=postgresql://me@h/db", "pw?x"),
        ("storage=postgresql://me:p?a=b/c@h/db", "storage=postgresql://me@h/db", "p?a=b/c"),
        ("storage=postgresql://me:p@w?x@h/db?user=a@b", "storage=postgresql://me@h/db?user=a@b", "p@w?x"),
        ("storage=me:pw@host/db", "storage=me@host/db", "pw"),  # no URL, which is told later
        ("storage=postgresql://me:pw@[::1]:5432/db", "storage=postgresql://me@[::1]:5432/db", "pw"),
        ("storage=postgresql://h/db?user=me&password=p%26w", "storage=postgresql://h/db?user=me", "p&w"),
        ("storage=postgresql://h/db?password=pw&user=me", "storage=postgresql://h/db?user=me", "pw"),
    ],
)
def test_a_password_is_taken_out_of_the_command_line(word, left, secret):
    assert passwords.taken_apart(["a=b:c@d", word]) == ["a=b:c@d", left]
    assert os.environ[passwords.KEY] == secret
    assert passwords.has(word.partition("=")[2])
    assert not passwords.has(left.partition("=")[2])


@pytest.mark.parametrize(
    "word",
    [
        "storage=null", "storage=sqlite:///study.db", "storage=sqlite:////tmp/a:b@c.db", f"storage={HOST}",
        "storage=postgresql://me@[::1]:5432/db", "storage=postgresql://me:${oc.env:PW}@host/db", "study=a:b@c",
        "storage=postgresql:///db?host=/tmp/sock",
    ],
)  # fmt: skip
def test_everything_else_is_left_alone(word):
    assert passwords.taken_apart([word]) == [word]
    assert passwords.KEY not in os.environ
    assert word.startswith("study") or not passwords.has(word.partition("=")[2])


def test_another_secret_is_refused_without_being_shown():
    with pytest.raises(UserError, match="sslpassword would be recorded") as caught:
        passwords.taken_apart(["storage=postgresql://me@h/db?sslpassword=hush"])
    assert "hush" not in str(caught.value)


def test_texts_for_people_show_no_password(monkeypatch):
    monkeypatch.setenv(passwords.KEY, "hush1")
    told = passwords.masked("cannot open postgresql://me:other@h/db and mysql://x:y@z with hush1")
    assert told == "cannot open postgresql://me:***@h/db and mysql://x:***@z with ***"
