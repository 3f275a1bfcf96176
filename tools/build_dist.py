"""Build the sdist and the wheel twice, compare the two builds, and put them into dist/.

The second build starts from the unpacked sdist of the first, in another folder and with another
umask, as a packager would. Needs hatchling. SOURCE_DATE_EPOCH, or else the time of the last
commit, is the time of all files, so that anybody can build the same bytes again.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]


def build(source: Path, target: Path, epoch: str) -> list[Path]:
    """Build both forms of the package from the folder `source`."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": epoch}
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(target)]
    done = subprocess.run(  # noqa: S603 - our own arguments
        command, cwd=source, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return sorted(target.iterdir())


def build_twice(folder: Path, epoch: str) -> list[Path]:
    """Build both forms two times; return the first ones, or exit if a byte differs."""
    first = build(TOP, folder / "first", epoch)
    sdist = next(path for path in first if path.name.endswith(".tar.gz"))
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (source,) = (folder / "unpacked").iterdir()
    previous = os.umask(0o077)
    try:
        second = build(source, folder / "second", epoch)
    finally:
        os.umask(previous)
    for one, other in zip(first, second, strict=True):
        if (one.name, digest(one)) != (other.name, digest(other)):
            raise SystemExit(f"two builds of {one.name} differ; compare {one} and {other}")
    return first


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def source_date() -> str:
    """Return SOURCE_DATE_EPOCH, or the time of the last commit."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return given
    command = ["git", "log", "-1", "--format=%ct"]
    done = subprocess.run(  # noqa: S603 - our own arguments
        command, cwd=TOP, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def main() -> None:
    """Build into dist/ and print the hashes."""
    target = TOP / "dist"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    with tempfile.TemporaryDirectory() as folder:
        for path in build_twice(Path(folder), source_date()):
            shutil.copy(path, target)
    lines = [f"{digest(path)}  {path.name}\n" for path in sorted(target.iterdir())]
    sys.stdout.writelines(lines)


if __name__ == "__main__":
    main()
