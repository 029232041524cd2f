"""Readers of published data sets, and how their files get here."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from typer.testing import CliRunner

from host.cli import app
from host.data import load_data
from host.sets.cifar import read_cifar_batch
from host.sets.download import SOURCES, Source, download
from host.sets.folders import read_image_folder
from host.sets.svhn import read_svhn
from host.train import datasets
from memmodels.errors import InputError, UsageError

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the original files are not beside this checkout")
RNG = np.random.default_rng(8)


def batch(path: Path, count: int = 7) -> tuple[np.ndarray, list[int]]:
    """A CIFAR batch like the published ones; those are of Python 2, whose strings only it writes."""
    data, labels = RNG.integers(0, 256, (count, 3072), np.uint8), RNG.integers(0, 10, count).tolist()
    content = {b"batch_label": b"testing batch", b"labels": labels, b"data": data, b"filenames": [b"a.png"] * count}
    path.write_bytes(pickle.dumps(content, protocol=3))
    return data, labels


# ── CIFAR-10 ────────────────────────────────────────────────────────────────────────────────────────


def test_cifar_batches_are_read(tmp_path: Path) -> None:
    data, labels = batch(tmp_path / "test_batch")
    images, classes = read_cifar_batch(tmp_path / "test_batch")
    assert images.shape == (7, 3, 32, 32)
    assert np.array_equal(images.reshape(7, -1), data)
    assert classes.tolist() == labels


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('the file ran')",)


@pytest.mark.parametrize(
    "content",
    [
        Hostile(),
        {b"data": Hostile(), b"labels": [1]},
        {b"data": np.array([Hostile()], object), b"labels": [1]},
        {b"data": np.zeros((2, 3072)), b"labels": [1, 2]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 10]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": ["a", "b"]},
        {b"labels": [1]},
        [1, 2],
    ],
)
def test_pickles_that_are_something_else_are_refused_and_not_run(tmp_path: Path, content: object) -> None:
    (tmp_path / "batch").write_bytes(pickle.dumps(content, protocol=3))
    with pytest.raises(InputError, match="CIFAR-10"):
        read_cifar_batch(tmp_path / "batch")


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_broken_batches_are_refused(tmp_path: Path, cut: int) -> None:
    batch(tmp_path / "batch")
    (tmp_path / "batch").write_bytes((tmp_path / "batch").read_bytes()[:cut])
    with pytest.raises(InputError):
        read_cifar_batch(tmp_path / "batch")


def test_cifar_is_a_data_set_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    first, _ = batch(folder / "data_batch_1", 8)
    second, _ = batch(folder / "data_batch_3", 10)
    data, labels = batch(folder / "test_batch")
    found = load_data("cifar-10", tmp_path)
    assert found.x.dtype == np.uint8
    assert np.array_equal(found.x.reshape(7, -1), data)
    assert found.y is not None
    assert found.y.tolist() == labels
    split = datasets.load("cifar-10", tmp_path)
    assert [len(part) for part in (split.train, split.validation, split.test)] == [15, 3, 7]
    together = np.concatenate([split.train.images, split.validation.images]).reshape(18, -1)
    assert np.array_equal(together, np.concatenate([first, second]))


@needs_shared
def test_real_cifar_has_a_thousand_of_each_class() -> None:
    found = load_data("cifar-10", SHARED)
    assert found.y is not None
    assert np.bincount(found.y).tolist() == [1000] * 10


# ── SVHN ────────────────────────────────────────────────────────────────────────────────────────────


def test_svhn_is_read_and_its_class_ten_is_zero(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (32, 32, 3, 5), np.uint8)
    for split in ("train", "test"):
        savemat(tmp_path / f"{split}_32x32.mat", {"X": images, "y": np.array([[10], [1], [9], [10], [2]], np.uint8)})
    found = load_data("svhn", tmp_path)
    assert found.y is not None
    assert found.y.tolist() == [0, 1, 9, 0, 2]
    assert np.array_equal(found.x[3], images[:, :, :, 3].transpose(2, 0, 1))


@pytest.mark.parametrize(
    "arrays", [{}, {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.zeros((2, 1), np.uint8)}, {"X": 1, "y": 2}]
)
def test_other_matlab_files_are_refused(tmp_path: Path, arrays: dict[str, object]) -> None:
    savemat(tmp_path / "a.mat", arrays)
    with pytest.raises(InputError, match="SVHN"):
        read_svhn(tmp_path / "a.mat")
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0")
    with pytest.raises(InputError, match="SVHN"):
        read_svhn(tmp_path / "a.mat")


@needs_shared
def test_real_svhn_digits() -> None:
    images, labels = read_svhn(SHARED / "svhn" / "train_first1083_32x32.mat")
    assert images.shape == (1083, 3, 32, 32)
    assert set(labels.tolist()) == set(range(10))


# ── image folders ───────────────────────────────────────────────────────────────────────────────────


def test_image_folders_are_classes_in_alphabetical_order(tmp_path: Path) -> None:
    colours = {"n02": (255, 0, 0), "n01": (0, 0, 255)}
    for part in ("train", "val"):
        for name, colour in colours.items():
            (tmp_path / part / name).mkdir(parents=True)
            for number, size in enumerate(((300, 240), (200, 500), (224, 224))):
                Image.new("RGB", size, colour).save(tmp_path / part / name / f"{number}.png")
    (tmp_path / "val" / "n01" / "notes.txt").write_text("not an image")
    found = load_data("imagenette", tmp_path)
    assert found.x.shape == (6, 3, 224, 224)
    assert found.y is not None
    assert found.y.tolist() == [0, 0, 0, 1, 1, 1]
    assert (found.x[:3] == np.array([0, 0, 255])[:, None, None]).all()
    assert sorted(datasets.load("imagenette", tmp_path).train.labels.tolist()) != [0, 0, 0, 0, 0]


def test_the_middle_of_an_image_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, 4:12] = 200
    Image.fromarray(pixels).save(tmp_path / "a" / "x.png")
    images, _ = read_image_folder(tmp_path, 8)
    assert (images == 200).all()


def test_folders_without_images_and_broken_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="subfolders"):
        read_image_folder(tmp_path / "nowhere")
    (tmp_path / "a").mkdir()
    with pytest.raises(InputError, match="0 images"):
        read_image_folder(tmp_path)
    (tmp_path / "a" / "x.jpeg").write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"x\.jpeg"):
        read_image_folder(tmp_path)


@needs_shared
def test_real_imagenette_sample() -> None:
    images, labels = read_image_folder(SHARED / "imagenette2-mini" / "val", 64)
    assert images.shape == (150, 3, 64, 64)
    assert np.bincount(labels).tolist() == [15] * 10


# ── download ────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on this machine, and the folder it serves."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}", folder
        http.shutdown()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def test_download_fetches_checks_tells_and_does_not_fetch_twice(server: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = server
    content = RNG.bytes(700_000)
    (folder / "a.bin").write_bytes(content)
    told: list[tuple[int, int | None]] = []
    sources = (Source(f"{address}/a.bin", md5(content)),)

    def tell(source: Source):  # type: ignore[no-untyped-def]
        return lambda here, total: told.append((here, total))

    (path,) = download("mine", tmp_path / "out", tell, sources)
    assert path.read_bytes() == content
    assert told[-1] == (700_000, 700_000)
    assert [here for here, _ in told] == sorted(here for here, _ in told)
    told.clear()
    download("mine", tmp_path / "out", tell, sources)
    assert not told


def test_download_unpacks_archives_within_their_folder(server: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = server

    def archive(name: str) -> bytes:
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w:gz") as tar:
            entry = tarfile.TarInfo(name)
            entry.size = 3
            tar.addfile(entry, io.BytesIO(b"abc"))
        return made.getvalue()

    for name, inner in (("good.tgz", "set/test_batch"), ("bad.tgz", "../outside")):
        (folder / name).write_bytes(archive(inner))
    tell = lambda source: lambda here, total: None  # noqa: E731
    good, bad = (Source(f"{address}/{n}", md5((folder / n).read_bytes()), archive=True) for n in ("good.tgz", "bad.tgz"))
    download("mine", tmp_path / "out", tell, (good,))
    assert (tmp_path / "out" / "set" / "test_batch").read_bytes() == b"abc"
    with pytest.raises(InputError, match="Unpacking"):
        download("mine", tmp_path / "out", tell, (bad,))
    assert not (tmp_path / "outside").exists()


def test_wrong_bytes_and_missing_files_leave_nothing(server: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = server
    (folder / "a.bin").write_bytes(b"other")
    tell = lambda source: lambda here, total: None  # noqa: E731
    for url in (f"{address}/a.bin", f"{address}/b.bin", "http://127.0.0.1:9/a.bin"):
        with pytest.raises(InputError, match="Downloading"):
            download("mine", tmp_path / "out", tell, (Source(url, md5(b"these")),))
    assert not list((tmp_path / "out").iterdir())
    with pytest.raises(UsageError, match="fashion-mnist"):
        download("mnist", tmp_path, tell)


def test_command_downloads(server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address, folder = server
    (folder / "a.bin").write_bytes(b"abc")
    monkeypatch.setitem(SOURCES, "fashion-mnist", (Source(f"{address}/a.bin", md5(b"abc")),))
    result = CliRunner().invoke(app, ["download", "fashion-mnist", "--data-dir", str(tmp_path / "data")])
    assert result.exit_code == 0
    assert (tmp_path / "data" / "fashion-mnist" / "a.bin").read_bytes() == b"abc"
    assert CliRunner().invoke(app, ["download", "mnist", "--data-dir", str(tmp_path / "data")]).exit_code == 2
