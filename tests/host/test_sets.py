"""Readers of published data sets, and how their files get here."""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat
from typer.testing import CliRunner

from weakcell.host.cli import app
from weakcell.host.datasets import training
from weakcell.host.datasets.download import SOURCES, Source, download
from weakcell.host.datasets.readers import read_cifar_batch, read_image_folder, read_svhn
from weakcell.host.datasets.registry import load_data
from weakcell.memmodels.errors import InputError, UsageError

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
    split = training.load_training_data("cifar-10", tmp_path)
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
    assert sorted(training.load_training_data("imagenette", tmp_path).train.labels.tolist()) != [0, 0, 0, 0, 0]


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


# ── forged and damaged files ────────────────────────────────────────────────────────────────────────


def forged_array(dtype: bytes, shape: bytes, content: bytes) -> bytes:
    """A CIFAR batch whose data are an array with this state, written opcode by opcode (Lib/pickletools.py)."""
    return (
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
        + shape + b"cnumpy\ndtype\n" + dtype + b"R\x89" + content + b"tbU\x06labels]K\x01au."
    )  # fmt: skip


PLAIN_DTYPE, ONE_IMAGE = b"(U\x02u1K\x00K\x01t", b"(K\x01M\x00\x0ct"


def test_arrays_of_a_forged_batch_are_read_if_they_are_bytes(tmp_path: Path) -> None:
    (tmp_path / "batch").write_bytes(forged_array(PLAIN_DTYPE, ONE_IMAGE, b"T" + struct.pack("<i", 3072) + bytes(3072)))
    images, labels = read_cifar_batch(tmp_path / "batch")
    assert images.shape == (1, 3, 32, 32)
    assert labels.tolist() == [1]


@pytest.mark.parametrize(
    ("dtype", "shape", "content"),
    [
        (b"(U\x02O8K\x00K\x01t", ONE_IMAGE, b"T" + struct.pack("<i", 3072) + bytes(3072)),  # pointers
        (PLAIN_DTYPE, b"(\x8a\x06\x00\x00\x00\x00\x00\x10t", b"U\x01a"),  # 2^44 bytes stated
        (PLAIN_DTYPE, b"(J\xff\xff\xff\xffM\x00\x0ct", b"T" + struct.pack("<i", 3072) + bytes(3072)),  # a negative length
        (PLAIN_DTYPE, ONE_IMAGE, b"]"),  # a list in place of bytes
        (PLAIN_DTYPE, ONE_IMAGE, b"U\x01a"),  # fewer bytes than stated
    ],
)
def test_forged_arrays_are_refused(tmp_path: Path, dtype: bytes, shape: bytes, content: bytes) -> None:
    (tmp_path / "batch").write_bytes(forged_array(dtype, shape, content))
    with pytest.raises(InputError, match="CIFAR-10"):
        read_cifar_batch(tmp_path / "batch")


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_damaged_batches_and_matrices_end_in_the_projects_error(data: st.DataObject) -> None:
    """Any bytes changed, anywhere: a batch or matrix is read or refused, nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.mat"
        read = data.draw(st.sampled_from([read_cifar_batch, read_svhn]))
        if read is read_cifar_batch:
            batch(path, 2)
        else:
            images = np.zeros((32, 32, 3, 2), np.uint8)
            savemat(path, {"X": images, "y": np.array([[1], [2]])}, do_compression=data.draw(st.booleans()))
        content = bytearray(path.read_bytes())
        last = len(content) - 1
        places = st.integers(0, min(255, last)) | st.integers(max(0, last - 255), last) | st.integers(0, last)
        for place in data.draw(st.lists(places, max_size=4)):
            content[place] = data.draw(st.integers(0, 255))
        path.write_bytes(content[: data.draw(st.none() | st.integers(0, last))])
        try:
            images, labels = read(path)
        except InputError:
            return
        assert images.dtype == labels.dtype == np.uint8
        assert images.shape == (len(labels), 3, 32, 32)


@pytest.mark.parametrize("order", ["<", ">"])
def test_matlab_files_are_read_as_scipy_reads_them(tmp_path: Path, order: str) -> None:
    """Small elements, both byte orders, doubles stored as bytes: scipy's reader is the reference."""
    images, labels = RNG.integers(0, 256, (32, 32, 3, 3), np.uint8), np.array([[10.0], [1.0], [3.0]])
    for compressed in (False, True):
        path = tmp_path / f"{compressed}.mat"
        savemat(path, {"note": "text", "X": images, "y": labels}, do_compression=compressed)
        if order == ">":
            path.write_bytes(swapped(path) if not compressed else path.read_bytes())
        got, classes = read_svhn(path)
        assert np.array_equal(got, images.transpose(3, 2, 0, 1))
        assert classes.tolist() == [0, 1, 3]


def swapped(path: Path) -> bytes:
    """A big-endian file of the same two matrices, put together by hand."""

    def element(kind: int, data: bytes) -> bytes:
        return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)

    def matrix(name: bytes, kind: int, of: int, values: np.ndarray) -> bytes:
        flags, shape = struct.pack(">II", kind, 0), struct.pack(f">{values.ndim}i", *values.shape)
        plain = values.astype(values.dtype.newbyteorder(">")).tobytes(order="F")
        return element(14, element(6, flags) + element(5, shape) + element(1, name) + element(of, plain))

    from scipy.io import loadmat

    content = loadmat(path)
    return bytes(124) + struct.pack(">H", 0x0100) + b"MI" + matrix(b"X", 9, 2, content["X"]) + matrix(b"y", 6, 9, content["y"])
