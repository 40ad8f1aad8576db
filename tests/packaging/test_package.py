"""The package as it is declared, and as it is built."""

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import patterndsl

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATION = tomllib.loads((ROOT / "pyproject.toml").read_text())
HOMES = {
    "patterndsl": ROOT / "patterndsl",
    "patterndsl.backends": ROOT / "backends",
    "patterndsl.grammar": ROOT / "grammar",
}


def real_packages():
    """Every directory with an `__init__.py`, by its dotted name."""
    found = set()
    for name, home in HOMES.items():
        for init in home.rglob("__init__.py"):  # does not follow the symlinks in patterndsl/
            inside = init.parent.relative_to(home)
            if not any((home / p).is_symlink() for p in (inside, *inside.parents)):
                found.add(".".join((name, *inside.parts)))
    return found


def test_every_package_is_listed():
    assert sorted(real_packages()) == sorted(CONFIGURATION["tool"]["setuptools"]["packages"])


def test_every_data_file_is_listed():
    listed = CONFIGURATION["tool"]["setuptools"]["package-data"]
    for package in real_packages():
        top = max((name for name in HOMES if package == name or package.startswith(f"{name}.")), key=len)
        folder = HOMES[top].joinpath(*package.removeprefix(top).strip(".").split("."))
        for path in folder.iterdir():
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                assert any(path.match(glob) for glob in listed.get(package, ())), f"{path} is in no wheel"


def test_the_top_level_packages_are_symlinked():
    for name in ("backends", "grammar"):
        assert os.readlink(ROOT / "patterndsl" / name) == f"../{name}"


def test_versions_agree():
    assert patterndsl.__version__ == CONFIGURATION["project"]["version"]
    assert f"## {patterndsl.__version__}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.skipif(
    "PATTERNDSL_INSTALLED" not in os.environ, reason="says where tests/run.py installed the wheel"
)
def test_the_installed_wheel_is_what_is_tested():
    assert Path(patterndsl.__file__).is_relative_to(os.environ["PATTERNDSL_INSTALLED"])
    assert not Path(patterndsl.__file__).is_relative_to(ROOT / "patterndsl")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the sdist, and the wheel that is made from it."""
    folder = tmp_path_factory.mktemp("dist")
    checkout = folder / "checkout"
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if tracked.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, tracked.stdout.decode().split("\0")):
        source, target = ROOT / name, checkout / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(os.readlink(source))
        elif source.exists():
            target.write_bytes(source.read_bytes())
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, checkout]
    result = subprocess.run(
        [str(c) for c in command], cwd=folder, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def test_sdist_and_wheel_hold_everything(built):
    (sdist,), (wheel,) = built.glob("*.tar.gz"), built.glob("*.whl")
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
    files = {p.relative_to(ROOT) for home in HOMES.values() for p in home.rglob("*") if p.is_file()}
    for path in files:
        if path.suffix == ".pyc" or any((ROOT / p).is_symlink() for p in path.parents):
            continue
        inside = path.as_posix() if path.parts[0] == "patterndsl" else f"patterndsl/{path.as_posix()}"
        assert inside in in_wheel, f"{inside} is not in the wheel"
        assert path.as_posix() in in_sdist, f"{path} is not in the sdist"
    assert {"LICENSE", "README.md", "pyproject.toml"} <= in_sdist


def test_the_wheel_runs_where_the_checkout_is_not(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        tmp_path,
        wheel,
    ]
    subprocess.run([str(c) for c in pip], check=True)
    code = "import patterndsl.cli, sys; print(patterndsl.__file__); patterndsl.cli.main()"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", code, "check", "-e", "causal"]
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0].startswith(str(tmp_path))
