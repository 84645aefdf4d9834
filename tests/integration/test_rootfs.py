"""Root file systems in folders: what is kept, what a program in one can do, and what is left when things go wrong."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

from builder.errors import BuildError, EngineError, InterruptedRun, RegistryError
from builder.layer.base import fetch_image
from builder.layer.native import ImageFolders
from builder.layer.store import LayerStore
from builder.matrix.model import Platform
from builder.oci.manifest import digest_of
from builder.oci.reference import Digest, ImageRef, Mirrors
from builder.oci.registry import Registries
from builder.process import ProcessGroup
from builder.rootfs.confine import Abilities, Confinement
from builder.rootfs.folders import RootFolders
from builder.rootfs.task import Program, Task
from tests.layers import tar_of
from tests.unit.test_unpack import Entry, entry

pytestmark = pytest.mark.integration

_DROP = "-sys_admin"
WAYS = {
    "namespaces": Confinement(prefix=(), abilities=Abilities(chroot=True, isolation=True, ids=True)),
    "chroot alone": Confinement(
        prefix=("setpriv", f"--bounding-set={_DROP}", f"--inh-caps={_DROP}", "--"),
        abilities=Abilities(chroot=True, isolation=False, ids=True),
    ),
    "an ordinary user": Confinement(
        prefix=("unshare", "--user", "--map-root-user", "--"),
        abilities=Abilities(chroot=True, isolation=True, ids=False),
    ),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageFolders:
    """What unpacks images of the sandbox's registry."""
    if os.geteuid():
        pytest.skip("root tries the ways of others too")
    folder = tmp_path_factory.mktemp("images")
    registries = Registries(Mirrors.from_strs([os.environ.get("BUILDER_MIRRORS", "")]))
    roots = RootFolders(folder=folder / "roots", confinement=WAYS["namespaces"], processes=ProcessGroup())
    return ImageFolders(registries=registries, store=LayerStore(folder=folder / "layers"), roots=roots)


@pytest.fixture(scope="module")
def base(images: ImageFolders) -> Iterator[Path]:
    """A Debian image, unpacked."""
    ref = ImageRef.from_str("docker.io/library/python:3.13-slim-bookworm")
    pinned = ref.with_digest(images.registries.resolve(ref))
    image = fetch_image(pinned, Platform.of_this_machine(), images.registries, images.store)
    with images.unpacked(image) as tree:
        yield tree


@pytest.fixture(params=WAYS)
def folders(request: pytest.FixtureRequest, tmp_path: Path) -> RootFolders:
    """Folders of one's own, in each way to run a program."""
    return RootFolders(folder=tmp_path / "roots", confinement=WAYS[request.param], processes=ProcessGroup())


@dataclass(frozen=True)
class Ended:
    """How a program ended: its exit code, its stdout, and what was left of the scratch folder."""

    code: int
    lines: list[str]


def run(folders: RootFolders, base: Path, script: str, *, above: Sequence[Path] = (), **fields: Any) -> Ended:
    """Run a script in a copy of the base, with trees over it."""
    lines: list[str] = []
    with folders.scratch() as scratch:
        program = Program(argv=("sh", "-euc", script), environment={}, **fields)
        task = Task(target=str(scratch / "root"), trees=[*map(str, [base, *above])], program=program, report="")
        Path(task.target).mkdir()
        code = folders.do(task, scratch, on_line=lines.append)
        assert not Path(task.target).exists()
    assert not list((folders.folder / "runs").iterdir())
    return Ended(code, lines)


def fingerprint(root: Path) -> str:
    """A hash of what is in a folder: names, inodes, sizes and times."""
    hashed = hashlib.sha256()
    for folder, _, names in sorted(os.walk(root)):
        for name in ["", *sorted(names)]:
            status = os.lstat(Path(folder, name))
            hashed.update(f"{folder}/{name} {status.st_ino} {status.st_size} {status.st_mtime_ns}\n".encode())
    return hashed.hexdigest()


def mounts(folder: Path) -> list[str]:
    """What is mounted below a folder, or comes from there."""
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(folder) in line]


def test_program_changes_its_copy_alone(folders: RootFolders, base: Path, tmp_path: Path) -> None:
    """Broken: a run changes the kept image, leaves a mount or a file, or hands out more than regular files."""
    before = fingerprint(base)
    output = tmp_path / "output"
    output.mkdir()
    ended = run(
        folders, base,
        "echo changed >> /etc/passwd; rm /etc/issue; mkdir /etc/new; chmod 700 /usr; rm -rf /opt\n"
        "mkdir -p /out; echo result > /out/a.tar; ln -s /etc/shadow /out/b.tar; mkdir /out/c.tar; mkfifo /out/d.tar\n",
        take_from="/out", take_to=str(output),
    )  # fmt: skip
    assert ended == Ended(0, [])
    assert fingerprint(base) == before
    assert mounts(tmp_path) == []
    assert {path.name: path.read_text() for path in output.iterdir()} == {"a.tar": "result\n"}


def test_what_a_program_finds(folders: RootFolders, base: Path, tmp_path: Path) -> None:
    """Broken: programs lack devices, names or secrets, or find this machine's environment or files."""
    secret, brought = tmp_path / "secret", tmp_path / "brought"
    secret.write_text("hidden\n")
    brought.mkdir()
    (brought / "file").write_text("brought\n")
    ended = run(
        folders, base,
        "echo x > /dev/null; head -c 4 /dev/urandom | wc -c; test -d /dev/shm; cat /run/secrets/ca /run/b/file\n"
        f"test ! -e {tmp_path}; id -u; pwd; env | sort\n"
        "python3 -c 'import multiprocessing; multiprocessing.Lock()'\n",
        bring={"/run/b": str(brought)}, secrets={"/run/secrets/ca": str(secret)}, workdir="/usr",
    )  # fmt: skip
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert ended == Ended(0, ["4", "hidden", "brought", "0", "/usr", "HOME=/root", f"PATH={path}", "PWD=/usr"])


def test_what_a_program_cannot_do(folders: RootFolders, base: Path, tmp_path: Path) -> None:
    """Broken: a build backend that runs as root leaves the folder, or reaches this machine's disks."""
    probe = tmp_path / "probe.py"
    probe.write_text(
        "import os, stat\n"
        "for name, attempt in [\n"
        "    ('chroot', lambda: os.chroot('/usr')),\n"
        "    ('device', lambda: os.mknod('/disk', stat.S_IFBLK, os.makedev(254, 0))),\n"
        "    ('this machine', lambda: os.stat('/proc/1/root" + str(tmp_path) + "')),\n"
        "    ('environment', lambda: open('/proc/1/environ').read()),\n"
        "]:\n"
        "    try:\n"
        "        attempt()\n"
        "        print(name)\n"
        "    except OSError:\n"
        "        pass\n"
    )
    assert run(folders, base, "python3 /run/probe.py", bring={"/run/probe.py": str(probe)}) == Ended(0, [])


def test_program_without_a_network(base: Path, tmp_path: Path) -> None:
    """Broken: images are verified with a network."""
    folders = RootFolders(folder=tmp_path / "roots", confinement=WAYS["namespaces"], processes=ProcessGroup())
    script = "python3 -c 'import socket; print([name for _, name in socket.if_nameindex()])'"
    assert run(folders, base, script, network=False).lines == ["['lo']"]


def test_program_in_time(folders: RootFolders, base: Path) -> None:
    """Broken: a program runs without an end, or what it started goes on after it."""
    mark = f"9{os.getpid()}"  # other workers run this test with other folders at the same time
    assert run(folders, base, f"sleep {mark}", seconds=1).code == 124
    assert run(folders, base, f"setsid sleep {mark} > /dev/null 2>&1 & echo started") == Ended(0, ["started"])
    assert subprocess.run(["pgrep", "-f", f"sleep {mark}"], capture_output=True, check=False).stdout == b""


FAULTY: Mapping[str, tuple[dict[str, Any], str]] = {
    "no program": ({"argv": ("no-such-program",)}, "cannot start no-such-program: No such file or directory"),
    "no folder": ({"workdir": "/missing"}, "cannot enter /missing: No such file or directory"),
    "no user": ({"user": "nobody-at-all"}, "the image has no user 'nobody-at-all'"),
}


@pytest.mark.parametrize("case", FAULTY)
def test_program_that_cannot_be_started(base: Path, tmp_path: Path, case: str) -> None:
    """Broken: an image without Python, or the like, fails with a traceback or without a word."""
    fields, said = FAULTY[case]
    folders = RootFolders(folder=tmp_path / "roots", confinement=WAYS["namespaces"], processes=ProcessGroup())
    program = Program(**{"argv": ("true",), "environment": {}, **fields})
    with folders.scratch() as scratch:
        (scratch / "root").mkdir()
        task = Task(target=str(scratch / "root"), trees=[str(base)], program=program, report="")
        with pytest.raises(BuildError, match=said):
            folders.do(task, scratch, on_line=lambda _: None)
    assert not list((folders.folder / "runs").iterdir())


def layer(path: Path, *sizes: int) -> Digest:
    """Write a layer with files of random bytes."""
    entries = []
    for number, size in enumerate(sizes):
        info = tarfile.TarInfo(f"file-{number}")
        info.size = size
        entries.append((info, os.urandom(size)))
    path.write_bytes(tar_of(*entries))
    return digest_of(path.read_bytes())


def kept(folders: RootFolders) -> list[str]:
    """The folders of unpacked images, finished or not."""
    return [path.name for path in (folders.folder / "kept").iterdir() if path.is_dir()]


def test_unpacked_once(folders: RootFolders, tmp_path: Path) -> None:
    """Broken: builds at the same time unpack an image twice, or one of them uses half of it."""
    blob = tmp_path / "blob"
    digest = layer(blob, 1000, 30_000_000)
    fetched, sizes = [], []

    def fetch(_: Digest) -> Path:
        fetched.append(1)
        return blob

    def use() -> None:
        with folders.kept([digest], fetch) as tree:
            sizes.append(sum(path.stat().st_size for path in (tree / "root").iterdir()))

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(fetched), sizes) == (1, [30_001_000] * 4)


def test_layers_over_each_other(
    folders: RootFolders, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken: an image of many layers cannot be mounted, is not what they make up, or is changed by what runs in it."""
    blobs: dict[Digest, Path] = {}

    def add(*entries: Entry) -> Digest:
        blob = tmp_path / f"blob-{len(blobs)}"
        blob.write_bytes(tar_of(*entries))
        blobs[digest_of(blob.read_bytes())] = blob
        return list(blobs)[-1]

    gone = [add(entry("opt/gone")), add(entry("opt/.wh.gone"))]
    many = [add(entry(f"opt/uv/file-{number}", content=b"x")) for number in range(110)]
    above = [*gone, add(entry("opt/uv", tarfile.DIRTYPE, mode=0o777)), *many, many[0]]
    monkeypatch.chdir(tmp_path)
    folders = replace(folders, folder=Path("roots"))  # as BUILDER_CACHE_DIR may be
    script = (
        f"test $(stat -f -c %T / | grep -c overlay) = {int(folders.confinement.abilities.isolation)}; "
        "stat -c %a /opt /opt/uv; ls /opt /opt/uv | wc -l; rm /opt/uv/file-5; touch /opt/uv/new; cat /opt/uv/file-0"
    )
    for _ in range(2):
        with folders.stacked([], above, blobs.__getitem__) as trees:
            assert len(trees) == 112  # those that remove something, and what is below them, are one
            assert run(folders, base, script, above=trees) == Ended(0, ["755", "777", "114", "x"])
        blobs.clear()  # nothing is unpacked again
    assert mounts(tmp_path) == []


def test_too_many_trees(folders: RootFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: unpacked layers fill the disk, or one goes that was used just now."""
    paths = [tmp_path / f"blob-{number}" for number in range(3)]
    blobs = {layer(path, 100_000): path for path in paths}
    digests = list(blobs)
    for number, digest in enumerate(digests):
        with folders.kept([digest], blobs.__getitem__) as tree:
            os.utime(tree, (time.time() - 1000 * number,) * 2)
    monkeypatch.setattr("builder.rootfs.folders._MOST", 250_000)
    folders.sweep()
    assert len(kept(folders)) == 2
    with folders.kept([digests[1]], blobless) as oldest:
        folders.sweep()
        monkeypatch.setattr("builder.rootfs.folders._MOST", 0)
        folders.sweep()
        assert kept(folders) == [oldest.name]
    assert [path.name for path in (folders.folder / "kept").iterdir() if path.suffix] == [f"{oldest.name}.lock"]


def blobless(digest: Digest) -> Path:
    """For layers that are there."""
    raise AssertionError(f"{digest} is unpacked again")


def test_full_disk(tmp_path: Path) -> None:
    """Broken: half an image is kept when the disk is full, or the error does not say where."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], check=True)
    try:
        folders = RootFolders(folder=disk / "roots", confinement=WAYS["namespaces"], processes=ProcessGroup())
        digest = layer(tmp_path / "blob", 3_000_000, 3_000_000)
        with pytest.raises(BuildError, match=f"no space left on device: {disk}/roots"):
            folders.kept([digest], lambda _: tmp_path / "blob").__enter__()
        assert kept(folders) == []
        assert list((folders.folder / "runs").iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_hostile_layer(folders: RootFolders, tmp_path: Path) -> None:
    """Broken: an image that cannot be unpacked is kept, or the error does not name its layer."""
    blob = tmp_path / "blob"
    blob.write_bytes(gzip.compress(tar_of((tarfile.TarInfo("fine"), b""), (tarfile.TarInfo("../../evil"), b""))))
    with pytest.raises(RegistryError, match=r"layer blob: entry '../../evil': .* leads out of the image"):
        folders.kept([digest_of(blob.read_bytes())], lambda _: blob).__enter__()
    assert kept(folders) == []
    assert not list(tmp_path.rglob("evil"))


class Zeros(io.RawIOBase):
    """A file of zeros."""

    def readable(self) -> bool:
        """It can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer."""
        buffer[:] = bytes(len(buffer))
        return len(buffer)


def slow_layer(path: Path, size: int) -> None:
    """Write a small layer that takes long to unpack."""
    with zstandard.open(path, "wb") as packed, tarfile.open(fileobj=packed, mode="w|") as tar:
        info = tarfile.TarInfo("file-0")
        info.size = size
        tar.addfile(info, io.BufferedReader(Zeros(), 1 << 20))


@pytest.mark.parametrize("is_killed", [False, True])
def test_interrupted_unpack(folders: RootFolders, tmp_path: Path, is_killed: bool) -> None:
    """Broken: half of an image is taken for the whole when a run is interrupted or killed."""
    blob, slow = tmp_path / "blob", tmp_path / "slow"
    digest = layer(blob, 1000)
    slow_layer(slow, 800_000_000)

    def stop() -> None:
        while not list((folders.folder / "kept").glob(".new-*/root/file-0")):
            time.sleep(0.01)
        if is_killed:
            (process,) = folders.processes._running
            os.killpg(process.pid, signal.SIGKILL)
        else:
            folders.processes.stop()

    (folders.folder / "kept").mkdir(parents=True)
    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises((InterruptedRun, EngineError)):
        folders.kept([digest], lambda _: slow).__enter__()
    thread.join()
    assert [name for name in kept(folders) if is_killed is False or not name.startswith(".new-")] == []
    again = replace(folders, processes=ProcessGroup())
    with again.kept([digest], lambda _: blob) as tree:
        assert (tree / "root" / "file-0").stat().st_size == 1000
    assert len(kept(folders)) == 1


def test_leftovers_are_removed(folders: RootFolders) -> None:
    """Broken: what killed runs left fills the disk, or a run that goes on loses its folder."""
    with folders.scratch() as used:
        left = used.with_name("left")
        left.mkdir()
        for path in (left, used):
            os.utime(path, (0, 0))
        folders.sweep()
        assert (used.is_dir(), left.exists()) == (True, False)


def test_no_rights_at_all() -> None:
    """Broken: where nothing is allowed, the error does not say what to do."""
    script = (
        "from builder.rootfs.confine import find_confinement\n"
        "try:\n    print(find_confinement())\nexcept Exception as error:\n    print(error)\n"
    )
    dropped = "--bounding-set=-all"
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'
    argv = ["unshare", "--user", "--map-root-user", "sh", "-c", forbid, "-", "setpriv", dropped, "--inh-caps=-all"]
    done = subprocess.run([*argv, sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "no program of an image can be run on this machine: chroot: not allowed; unshare: " in done.stdout
    assert "--builder" in done.stdout
