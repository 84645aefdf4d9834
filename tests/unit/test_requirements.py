"""An invalid `requirements.txt`: one message lists every wrong line, and no index is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import LockError
from builder.lock.local import left_to_jobs
from builder.lock.read import read_lock
from builder.lock.select import select
from builder.matrix.schema import Install
from tests import locks
from tests.cells import debian
from tests.locks import FILES, fake_hash

HASH = f"--hash=sha256:{fake_hash('one')}"


def faults(folder: Path, text: str) -> list[str]:
    """The lines of the error message after the first."""
    path = folder / "requirements.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LockError) as raised:
        read_lock(path, Install())
    assert raised.value.exit_code == 2
    head, *lines = str(raised.value).splitlines()
    assert head == f"cannot use {path} as a lock:"
    return [line.strip() for line in lines]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("one==1.0", "one has no --hash; pin with `uv pip compile --generate-hashes`"),
        ("one", "one has no --hash"),
        (f"one {HASH}", "one is not pinned with =="),
        (f"one>=1.0 {HASH}", "one is not pinned with =="),
        (f"one==1.* {HASH}", "one is not pinned with =="),
        (f"one==1.0,<2 {HASH}", "one is not pinned with =="),
        ("one @ https://files.invalid/one-1.0-py3-none-any.whl", "one has no --hash"),
        (f"one=1.0 {HASH}", "is not a requirement"),
        (f"http://[::1/one-1.0.zip {HASH}", "is not a requirement"),
        (f"one @ http://[::1/one-1.0.zip {HASH}", "is not a requirement"),
        (f"$(id) {HASH}", "'$(id)' is not a requirement"),
        ("one==1.0 --hash=md5:abc", "--hash=md5:… is not safe, or unknown; pin with one of sha256, sha384, sha512"),
        ("one==1.0 --hash=sha256:abcd", "--hash=sha256:abcd… is not 64 hexadecimal digits"),
        (f"--hash=sha256:{fake_hash('one')}", "--hash without a requirement; a comment or an empty line ends"),
        (f"one==1.0 --config-settings=a=b {HASH}", "option --config-settings of a requirement is not supported"),
        (f"https://files.invalid/latest {HASH}", "'https://files.invalid/latest' is not a requirement"),
        (
            f"https://jane:hunter2@files.invalid/latest {HASH}",
            "'https://***@files.invalid/latest' is not a requirement",
        ),
        ("one @ git+https://git.invalid/one.git@main", "one is not pinned to a commit; write `git+https://git.invalid"),
        ("-r https://jane:hunter2@files.invalid/r.txt", "https://files.invalid/r.txt is not a file here; download it"),
        ("-e ./missing", "-e ./missing: no such directory; only local packages can be editable"),
        ("--editable=./missing[extra]", "no such directory"),
        ("-e git+https://jane:hunter2@git.invalid/one.git", "only local packages can be editable; write `NAME @ git+"),
        ("-r missing.txt", "cannot read missing.txt: No such file"),
        ("-rmissing.txt", "cannot read missing.txt: No such file"),
        ("--requirement=missing.txt", "cannot read missing.txt: No such file"),
        ("-c missing.txt", "cannot read missing.txt: No such file"),
        ("--find-links https://files.invalid", "option --find-links is not supported in a lock; remove it"),
        ("-f https://files.invalid", "option -f is not supported in a lock"),
        ("--no-index", "option --no-index is not supported"),
        ("-i 'https://index.invalid", "No closing quotation"),
    ],
)
def test_fault_has_file_and_line(tmp_path: Path, line: str, words: str) -> None:
    """Broken: an invalid line is accepted, or the error does not say which line it is."""
    (fault,) = faults(tmp_path, f"# a comment\n\n{line}\n")
    assert fault.startswith("requirements.txt:3: ")
    assert words in fault
    assert "hunter2" not in fault


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    """Broken: users fix one line, run builder again, and get the next fault."""
    (tmp_path / "more.txt").write_text("three\nfour==1.0\n", encoding="utf-8")
    text = f"one==1.0\ntwo>=1 \\\n    {HASH}\n-r more.txt\n-e ./missing\n-r missing.txt\n--no-index\nfive==1.0 {HASH}\n"
    assert [fault.split(" ")[0:2] for fault in faults(tmp_path, text)] == [
        ["requirements.txt:1:", "one"],
        ["requirements.txt:2:", "two"],
        ["more.txt:1:", "three"],
        ["more.txt:2:", "four"],
        ["requirements.txt:5:", "-e"],
        ["requirements.txt:6:", "cannot"],
        ["requirements.txt:7:", "option"],
    ]


def test_file_that_includes_itself(tmp_path: Path) -> None:
    """Broken: two files that include each other cause an endless loop."""
    (tmp_path / "more.txt").write_text("-r requirements.txt\n-r more.txt\n", encoding="utf-8")
    assert faults(tmp_path, "-r more.txt\none==1.0\n") == [
        "requirements.txt:2: one has no --hash; pin with `uv pip compile --generate-hashes`"
    ]


def test_same_pin_in_several_files(tmp_path: Path) -> None:
    """Broken: files that include each other and repeat a pin are refused, though uv installs from them."""
    url = "https://files.invalid/one-1.0-py3-none-any.whl"
    other = f"--hash=sha256:{fake_hash('two')}"
    (tmp_path / "more.txt").write_text(f"One @ {url} {HASH} {other}\n", encoding="utf-8")
    path = tmp_path / "requirements.txt"
    path.write_text(f"-r more.txt\none @ {url} ; python_version < '4' {HASH}\n", encoding="utf-8")
    (one,) = read_lock(path, Install()).pylock.packages
    assert (one.name, one.marker) == ("one", None)
    assert one.wheels is not None
    assert one.wheels[0].hashes == {"sha256": fake_hash("one")}


@pytest.mark.parametrize(
    ("text", "more", "fault"),
    [
        (
            f"one==1.0 {HASH}",
            f"One==1.1 {HASH}",
            "one==1.0 (requirements.txt:2) disagrees with one==1.1 (in/more.txt:1)",
        ),
        (
            f"one==1.0 ; os_name == 'posix' {HASH}",
            f"one==2.0; os_name=='posix' {HASH}",
            "one==1.0 (requirements.txt:2) disagrees with one==2.0 (in/more.txt:1)",
        ),
        (
            f"one==1.0 {HASH}",
            f"one==1.0.0 --hash=sha256:{fake_hash('two')}",
            "one==1.0 (requirements.txt:2) has other hashes than one==1.0.0 (in/more.txt:1)",
        ),
        (f"one==1.0 {HASH}\n-c in/more.txt", "one<1", "disagrees with the constraint <1 (in/more.txt:1)"),
    ],
)
def test_pins_that_disagree(tmp_path: Path, text: str, more: str, fault: str) -> None:
    """Broken: one of two versions is installed, or the error does not name both places."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "more.txt").write_text(f"{more}\n", encoding="utf-8")
    first = "" if "-c" in text else "-r in/more.txt"
    (said,) = faults(tmp_path, f"{first}\n{text}\n")
    assert fault in said


def test_pins_that_disagree_in_one_cell(tmp_path: Path) -> None:
    """Broken: where two markers overlap, one of two versions is installed, or the error does not name both places."""
    url = "https://files.invalid/one-{}-py3-none-any.whl"
    path = tmp_path / "requirements.txt"
    path.write_text(
        f"one @ {url.format('1.0')} ; python_version < '3.13' {HASH}\n"
        f"one @ {url.format('2.0')} ; python_version > '3.11' {HASH}\n",
        encoding="utf-8",
    )
    lock = read_lock(path, Install())
    assert select(lock, debian("3.11")).packages[0].filename == "one-1.0-py3-none-any.whl"
    with pytest.raises(LockError, match=r"one \(requirements.txt:1\) and one \(requirements.txt:2\) are both selected"):
        select(lock, debian("3.12"))


def test_constraints_that_include_others(tmp_path: Path) -> None:
    """Broken: a version is baked that a constraint forbids, because another file of constraints includes it."""
    (tmp_path / "more.txt").write_text("-c last.txt\n-c more.txt\n", encoding="utf-8")
    (tmp_path / "last.txt").write_text("one==1.1\n", encoding="utf-8")
    (said,) = faults(tmp_path, f"-c more.txt\none==1.0 {HASH}\n")
    assert "disagrees with the constraint ==1.1 (last.txt:1)" in said


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    """Broken: a file that was written on Windows is refused, though uv and pip read it."""
    path = tmp_path / "requirements.txt"
    path.write_bytes(f"one @ https://files.invalid/one-1.0-py3-none-any.whl {HASH}\r\n".encode(encoding))
    assert [package.name for package in read_lock(path, Install()).pylock.packages] == ["one"]


@pytest.mark.parametrize(
    ("line", "key", "expected"),
    [
        (f"https://files.invalid/one-1.0-py3-none-any.whl {HASH}", "wheels", "https://files.invalid/one-1.0-py3-none-any.whl"),
        (f"https://files.invalid/one-1.0.tar.gz#egg=one {HASH}", "archive", "https://files.invalid/one-1.0.tar.gz"),
        (f"one @ https://files.invalid/one.zip#sha256={fake_hash('one')}", "archive", "https://files.invalid/one.zip"),
    ],
)  # fmt: skip
def test_url_without_name_or_option(tmp_path: Path, line: str, key: str, expected: str) -> None:
    """Broken: a URL whose file name gives the project, or whose fragment gives the hash, is refused; uv takes both."""
    path = tmp_path / "requirements.txt"
    path.write_text(f"{line}\n", encoding="utf-8")
    (one,) = read_lock(path, Install()).pylock.packages
    file = one.wheels[0] if key == "wheels" and one.wheels else one.archive
    assert file is not None
    assert (one.name, file.url, file.hashes) == ("one", expected, {"sha256": fake_hash("one")})


def test_git_repository_at_a_commit(tmp_path: Path) -> None:
    """Broken: a requirement that uv pins to a commit is refused, or its login is in the lock."""
    path = tmp_path / "requirements.txt"
    url = f"git+https://jane:hunter2@git.invalid/acme/one.git@{'a1' * 20}#subdirectory=sub"
    path.write_text(f"one @ {url}\n", encoding="utf-8")
    (one,) = select(read_lock(path, Install()), debian("3.12")).packages
    assert one.source == {
        "type": "git", "url": "https://git.invalid/acme/one.git", "commit-id": "a1" * 20, "subdirectory": "sub",
    }  # fmt: skip


def test_included_file_that_is_not_text(tmp_path: Path) -> None:
    """Broken: -r with a binary file causes a traceback."""
    (tmp_path / "more.txt").write_bytes(b"\xff\xfd")
    assert faults(tmp_path, "-r more.txt\n") == ["requirements.txt:1: cannot read more.txt: not UTF-8 text"]


@pytest.mark.parametrize(
    "text",
    [
        "# nothing but a comment\n",
        "-e .\n",
        ".\n./\nfile:.\n",
        "--require-hashes\n--pre\n--prefer-binary\n--trusted-host index.invalid\n",
        "--only-binary :all:\n--no-binary=one,two\n",
    ],
)
def test_file_without_pinned_packages(tmp_path: Path, text: str) -> None:
    """Broken: builder rejects a file without pinned packages, or asks an index about it."""
    path = tmp_path / "requirements.txt"
    path.write_text(text, encoding="utf-8")
    assert read_lock(path, Install()).pylock.packages == []


def test_what_is_left_to_jobs(tmp_path: Path) -> None:
    """Broken: images lack packages whose files are in the checkout, without a word."""
    path = tmp_path / "requirements.txt"
    path.write_text(f".\n./lib\none @ file:///srv/one.whl\ntwo @ {FILES}/two.zip {HASH}\n", encoding="utf-8")
    assert left_to_jobs(read_lock(path, Install())) == ("./lib", "one @ file:///srv/one.whl")
    hashes = {"sha256": fake_hash("three")}
    wheels = [{"name": "three-1.0-py3-none-any.whl", "path": "w/three.whl", "hashes": hashes}]
    local = [{"name": name, "directory": {"path": folder}} for name, folder in (("lib", "lib"), ("app", "."))]
    assert left_to_jobs(locks.read(tmp_path, *local, {"name": "three", "wheels": wheels})) == ("lib", "w/three.whl")


def test_url_with_a_hash_needs_no_index(tmp_path: Path) -> None:
    """Broken: builder asks an index for a package that is pinned by URL and hash, or keeps the password in its URL."""
    path = tmp_path / "requirements.txt"
    path.write_text(
        f"one @ https://jane:hunter2@files.invalid/one-1.0-py3-none-any.whl ; python_version < '4' {HASH}\n"
        f"two @ https://files.invalid/two.zip \\\n  {HASH}\n",
        encoding="utf-8",
    )
    one, two = read_lock(path, Install()).pylock.packages
    assert one.wheels is not None
    assert one.wheels[0].url == "https://files.invalid/one-1.0-py3-none-any.whl"
    assert str(one.marker) == 'python_version < "4"'
    assert two.archive is not None
    assert two.archive.hashes == {"sha256": fake_hash("one")}


@pytest.mark.parametrize(
    ("install", "names"),
    [
        (Install(groups=("dev",)), "dev"),
        (Install(groups=("dev", "docs"), extras=("tls",)), "dev, docs, tls"),
        (Install(groups="all", extras="all"), "all groups, all extras"),
        (Install(packages=("api",)), "api"),
        (Install.model_validate({"packages": "all", "only-groups": ("lint",)}), "all packages, lint"),
    ],
)
def test_groups_and_extras_are_rejected(tmp_path: Path, install: Install, names: str) -> None:
    """Broken: install.groups and install.extras are silently ignored for a requirements file."""
    path = tmp_path / "requirements.txt"
    path.write_text("one==1.0\n", encoding="utf-8")
    with pytest.raises(LockError, match=f"has no groups or extras, but the matrix selects {names}\n"):
        read_lock(path, install)
