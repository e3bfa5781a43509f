"""Places: paths, URIs, and what a store answers."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
from object_store import BUCKET, ObjectStore, impatient

from recsys.errors import NoSpaceError, StorageError, cause_of
from recsys.storage import patience
from recsys.storage.conditional import create, takes_conditions
from recsys.storage.faults import Fault, fault_of
from recsys.storage.location import Location, place_of


def always(method: str, path: str) -> bool:
    return True


@pytest.fixture
def place(store: ObjectStore) -> Location:
    return Location(f"{store.uri}/a/folder")


class TestPlaces:
    def test_a_path_stays_a_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert place_of("runs/demo") == tmp_path / "runs/demo"
        assert place_of("~/x") == Path.home() / "x"
        assert place_of(f"file://{tmp_path}/x") == tmp_path / "x"

    def test_a_uri_is_a_location_and_a_slash_at_its_end_is_none(self) -> None:
        place = place_of("s3://bucket/a/b/")
        assert isinstance(place, Location)
        assert (str(place), place.bucket) == ("s3://bucket/a/b", "bucket")
        assert place_of(str(place)) == place == copy.copy(place)

    @pytest.mark.parametrize(
        ("text", "told"),
        [("ftp://host/x", "use a path or one of s3://, gs://"), ("s3:///x", "names no bucket")],
    )
    def test_other_uris_are_refused(self, text: str, told: str) -> None:
        with pytest.raises(ValueError, match=told):
            place_of(text)


class TestFiles:
    def test_what_is_written_is_read(self, place: Location) -> None:
        assert place.read("x/y") is None
        assert place.sizes() == {}
        place.write("x/y", b"one")
        place.write("x/y", b"three")
        place.write("x/z", b"")
        assert (place.read("x/y"), place.read("x/z")) == (b"three", b"")
        assert place.sizes() == {"x/y": 5, "x/z": 0}
        assert (place / "x").sizes() == {"y": 5, "z": 0} == Location(f"{place}/x").sizes()
        assert place.sizes("x") == place.sizes()
        place.remove(["x/y", "never"])
        assert place.sizes() == {"x/z": 0}

    def test_files_are_copied_there_and_back(self, place: Location, tmp_path: Path) -> None:
        (tmp_path / "one").write_bytes(b"content")
        place.upload(tmp_path / "one", "part")
        assert place.download("part", tmp_path / "two")
        assert (tmp_path / "two").read_bytes() == b"content"
        assert not place.download("none", tmp_path / "three")

    def test_a_file_is_created_once(self, place: Location) -> None:
        assert place.create("x", b"one")
        assert not place.create("x", b"two")
        assert place.read("x") == b"one"

    def test_a_creation_whose_answer_is_lost_is_known_by_its_content(
        self, store: ObjectStore, place: Location
    ) -> None:
        with store.failing_after(lambda method, path: method == "PUT"):
            assert place.create("x", b"one")
        assert not place.create("x", b"two")


class TestFaults:
    @pytest.mark.slow
    def test_what_passes_is_waited_for(self, store: ObjectStore, place: Location) -> None:
        with store.failing(always, times=3):
            place.write("x", b"one")
        with store.failing(always, times=3):
            assert place.read("x") == b"one"
        with store.breaking(lambda method, path: method == "GET"):
            assert place.read("x") == b"one"
        with store.slow(lambda method, path: method == "GET", pause_s=0.01):
            assert place.read("x") == b"one"

    def test_a_store_that_fails_for_long_is_told(self, store: ObjectStore, place: Location) -> None:
        with store.failing(always), pytest.raises(StorageError) as told:
            place.write("x", b"one")
        assert str(told.value) == (
            "s3://shop/a/folder/x: the store does not answer: [Errno 121] InternalError, as told. "
            "Fix: see that it runs and is reached from here; it was asked for 1 s. Then run the "
            "same command again"
        )

    @pytest.mark.slow
    def test_a_server_that_is_down_is_waited_for(
        self, store: ObjectStore, place: Location, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place.write("x", b"one")
        store.stop()
        told = "the store does not answer: Could not connect"
        with impatient(), pytest.raises(StorageError, match=told):
            place.read("x")
        monkeypatch.setattr(patience.time, "sleep", lambda seconds: store.start())
        assert place.read("x") == b"one"

    def test_a_bucket_that_is_not_there_is_told(self, store: ObjectStore, place: Location) -> None:
        elsewhere = Location("s3://other/folder")
        for act in (
            lambda: elsewhere.read("x"),
            lambda: elsewhere.write("x", b""),
            elsewhere.sizes,
        ):
            with pytest.raises(StorageError, match=r"no such bucket \(got 'other'\)"):
                act()
        place.write("x", b"one")
        store.remove_bucket()
        with pytest.raises(StorageError, match=r"no such bucket \(got 'shop'\)"):
            place.read("x")

    def test_wrong_and_missing_credentials_are_told(
        self, place: Location, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        with pytest.raises(StorageError, match="lets us not in .*AWS_ACCESS_KEY_ID and AWS_SECRET"):
            place.write("x", b"")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
            monkeypatch.setenv(name, "/nowhere")
        with pytest.raises(StorageError, match="lets us not in .Unable to locate credentials"):
            Location(str(place)).read("x")

    @pytest.mark.parametrize(
        ("uri", "library", "extra"),
        [
            ("s3://b/x", "s3fs", "s3"),
            ("gs://b/x", "gcsfs", "gcs"),
            ("abfs://b/x", "adlfs", "azure"),
        ],
    )
    def test_a_library_that_is_missing_is_told(
        self, uri: str, library: str, extra: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import fsspec  # noqa: F401 - its module of that name is hidden by a variable

        known = sys.modules["fsspec.registry"]._registry
        monkeypatch.delitem(known, uri.partition(":")[0], raising=False)
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(StorageError, match=rf"not installed.*raycommend\[{extra}\]"):
            Location(uri).read("x")

    def test_a_full_disk_of_this_machine_is_none_of_the_store(
        self, place: Location, tmp_path: Path
    ) -> None:
        from small_disk import fill, mounted

        place.write("x", bytes(300_000))
        with mounted(tmp_path / "disk", megabytes=1) as disk:
            fill(disk, leave=100_000)
            with pytest.raises(OSError) as told:  # noqa: PT011 - the number is looked at
                place.download("x", disk / "x")
            assert isinstance(cause_of(told.value), NoSpaceError)


def test_requests_go_to_the_bucket_of_the_uri(store: ObjectStore, place: Location) -> None:
    place.write("x", b"")
    assert ("PUT", f"/{BUCKET}/a/folder/x") in store.requests


def test_pyarrows_file_systems_are_spoken_to_as_well(tmp_path: Path) -> None:
    """As HDFS is; it creates nothing on a condition, so the lock object stands in."""
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow.fs import LocalFileSystem

    place = Location(f"hdfs://name:8020{tmp_path}/folder")
    place.__dict__.update({"_fs": ArrowFSWrapper(LocalFileSystem()), "_root": f"{tmp_path}/folder"})
    assert place.read("x") is None and place.sizes() == {}
    place.write("x", b"one")
    before = place.tags()
    place.write("x", b"three")
    assert place.read("x") == b"three" and place.sizes() == {"x": 5}
    assert place.tags() != before
    place.upload(tmp_path / "folder" / "x", "y")
    assert place.download("y", tmp_path / "copy") and not place.download("z", tmp_path / "none")
    assert (tmp_path / "copy").read_bytes() == b"three"
    assert not takes_conditions(place)
    assert create(place, "sub/new", b"1") and not create(place, "sub/new", b"2")
    place.remove(["x", "y", "never"])
    assert place.sizes() == {"sub/new": 1}


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        (412, Fault.TAKEN), ("404", Fault.ABSENT), (403, Fault.DENIED), (400, Fault.REFUSED),
        (429, Fault.PASSING), (503, Fault.PASSING), (None, Fault.PASSING),
    ],
)  # fmt: skip
def test_answers_of_googles_store(code: object, fault: Fault) -> None:
    class HttpError(Exception):
        """As gcsfs has it."""

    error = HttpError("told")
    error.code = code  # type: ignore[attr-defined]
    assert fault_of(error) is fault
