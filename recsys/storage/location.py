"""A folder in a store of objects, by URI; a plain path stays a path.

    s3://bucket/folder    gs://bucket/folder    abfs://container@account/folder
    hdfs://host:port/folder    file:///folder

fsspec speaks to the store. Keys and tokens come from the environment or from files of the user, as
each store's own library looks for them; a recipe holds none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

from recsys.errors import StorageError
from recsys.storage import patience
from recsys.storage.faults import Fault, fault_of
from recsys.storage.outputs import whole_file

#: Scheme -> extra of this package that brings its library; hdfs comes with pyarrow.
SCHEMES: Final = {"s3": "s3", "gs": "gcs", "abfs": "azure", "hdfs": None}
#: Where the libraries tell what a file is: by its content, or when it was written.
_TAGS: Final = ("ETag", "etag", "generation", "mtime", "last_modified")
#: Where the libraries look for credentials.
CREDENTIALS: Final = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or the machine's role; "
    "AWS_ENDPOINT_URL names a server that is not Amazon's",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS or the machine's service account",
    "abfs": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or the machine's identity",
    "hdfs": "a Kerberos ticket, or HADOOP_USER_NAME",
}

_T = TypeVar("_T")


@dataclass(frozen=True)
class Location:
    """A folder in a store; it need not be there.

    Names below it are relative, with `/` between their parts. A store that does not answer is asked
    again, see `recsys.storage.patience`.

    Attributes:
        uri: without a slash at its end.

    Raises:
        StorageError: of every method: the store lets nobody in, its bucket is not there, it refuses
            the request, or it does not answer.
    """

    uri: str

    def __str__(self) -> str:
        return self.uri

    def __truediv__(self, name: str) -> Location:
        below = Location(f"{self.uri}/{name}")
        if "_fs" in self.__dict__:  # one connection for all
            below.__dict__["_fs"] = self._fs
        return below

    def __reduce__(self) -> tuple[object, ...]:
        """Connections stay in their process."""
        return Location, (self.uri,)

    @property
    def scheme(self) -> str:
        """Of the URI."""
        return self.uri.partition("://")[0]

    @property
    def bucket(self) -> str:
        """What the store calls by that name, or its like."""
        return self.uri.partition("://")[2].partition("/")[0]

    def read(self, name: str) -> bytes | None:
        """The content of a small file; None where there is none."""
        # Without it s3fs asks for the size first, to read a large one in parts.
        whole = {"max_concurrency": 1} if self.scheme == "s3" else {}
        return self._or_none(lambda fs: bytes(fs.cat_file(self._path(name), **whole)), name)

    def write(self, name: str, data: bytes) -> None:
        """Write a small file, in the place of one that is there. Readers see the old or the new."""
        self._do(lambda fs: fs.pipe_file(self._to_write(name), data), name)

    def create(self, name: str, data: bytes) -> bool:
        """Write a small file if there is none, and say whether it was written; see `creates`.

        Args:
            name: of the file.
            data: no other writer's: an answer that was lost is told from a refusal by them.
        """
        try:
            self._do(lambda fs: fs.pipe_file(self._path(name), data, mode="create"), name)
        except FileExistsError:
            return self.read(name) == data
        return True

    def reading(self, name: str, work: Callable[[Any], _T]) -> _T:
        """What some work reads of a file, which may be long; what is not read is not fetched.

        Args:
            name: of the file.
            work: is given a file of Arrow's; may be done again.
        """
        import pyarrow as pa

        def read(fs: Any) -> _T:
            with fs.open(self._path(name), "rb", cache_type="none") as file:
                return work(pa.PythonFile(file, mode="r"))

        return self._do(read, name)

    def upload(self, file: Path, name: str) -> None:
        """Copy a file of this machine there."""
        self._do(lambda fs: fs.put_file(str(file), self._to_write(name)), name)

    def download(self, name: str, file: Path) -> bool:
        """Copy a file from there; False where there is none. What came is not checked."""

        def get(fs: Any) -> bool:
            fs.get_file(self._path(name), str(file))
            return True

        return self._or_none(get, name) or False

    def fetch(self, name: str, file: Path) -> None:
        """Have a small file of this machine as it is there; gone, where there is none."""
        data = self.read(name)
        if data is None:
            file.unlink(missing_ok=True)
            return
        with whole_file(file) as aside:
            aside.write_bytes(data)

    def sizes(self, below: str = "") -> dict[str, int]:
        """Bytes of each file in and below a folder, by its name from here."""
        return {name: int(info["size"] or 0) for name, info in self._find(below).items()}

    def folders(self) -> list[str]:
        """Names of what looks like folders right below this one, sorted."""
        found = self._or_none(lambda fs: fs.ls(self._root, detail=True), "") or []
        names = (info["name"] for info in found if info["type"] == "directory")
        return sorted(str(name).rstrip("/").rpartition("/")[2] for name in names)

    def tags(self) -> dict[str, str]:
        """What each file in and below this folder is now, by its name: another if it is written."""
        return {
            name: f"{info['size']} {next((info[key] for key in _TAGS if info.get(key)), '')}"
            for name, info in self._find("").items()
        }

    def _find(self, below: str) -> dict[str, dict[str, Any]]:
        folder = self._path(below).rstrip("/")
        found = self._or_none(lambda fs: fs.find(folder, detail=True), below) or {}
        start = len(self._path(""))
        return {
            str(path)[start:]: info
            for path, info in sorted(found.items())
            if info["type"] == "file"
        }

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; one that is gone is none to remove."""
        for name in names:
            path = self._path(name)
            self._or_none(lambda fs, path=path: fs.rm_file(path), name)  # type: ignore[misc]

    def arrow(self) -> tuple[Any, str]:
        """For libraries that write by themselves: the store as Arrow's filesystem, and the path."""
        import fsspec
        from pyarrow.fs import FSSpecHandler, PyFileSystem

        fs, path = fsspec.url_to_fs(self.uri, use_listings_cache=False)
        return PyFileSystem(FSSpecHandler(fs)), path

    def _to_write(self, name: str) -> str:
        """The path of a file; HDFS has folders, which must be there."""
        path = self._path(name)
        if self.scheme == "hdfs":
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        return path

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @cached_property
    def _root(self) -> str:
        return str(self._fs._strip_protocol(self.uri)).rstrip("/")

    @cached_property
    def _fs(self) -> Any:
        import fsspec

        options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
        if self.scheme == "s3":  # asked again here, and not by three libraries in turn
            options["config_kwargs"] = {"retries": {"max_attempts": 1, "mode": "standard"}}
        try:
            fs, _ = fsspec.url_to_fs(self.uri, **options)
        except ImportError as error:
            extra = SCHEMES[self.scheme]
            raise StorageError(
                f"the library for {self.scheme}:// is not installed: {error}", where=self.uri,
                fix=f"pip install 'raycommend[{extra}]'" if extra else
                "install Hadoop's client library (libhdfs), which pyarrow loads",
            ) from None  # fmt: skip
        except Exception as error:
            raise self._told(error, fault_of(error), "") from None
        fs.retries = 1
        return fs

    def _or_none(self, work: Callable[[Any], _T], name: str) -> _T | None:
        try:
            return self._do(work, name)
        except FileNotFoundError:
            return None

    def _do(self, work: Callable[[Any], _T], name: str) -> _T:
        """Have the store do something, again where that may help.

        Raises:
            FileNotFoundError: the file is not there.
            FileExistsError: it is there, and was not to be.
            OSError: of this machine's disk.
        """
        try:
            return patience.patiently(
                lambda: work(self._fs), lambda error: fault_of(error) is Fault.PASSING
            )
        except Exception as error:
            fault = fault_of(error)
            if fault is Fault.ABSENT:
                raise FileNotFoundError(f"{self.uri}/{name}") from None
            if fault is Fault.TAKEN:
                raise FileExistsError(f"{self.uri}/{name}") from None
            if fault is Fault.OTHER:
                raise
            raise self._told(error, fault, name) from None

    def _told(self, error: Exception, fault: Fault, name: str) -> StorageError:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        where = f"{self.uri}/{name}" if name else self.uri
        if fault is Fault.NO_BUCKET:
            return StorageError(
                "there is no such bucket", where=where, value=self.bucket,
                fix="create it, or correct the URI; what was written before needs no other bucket",
            )  # fmt: skip
        if fault is Fault.DENIED:
            return StorageError(
                f"the store lets us not in ({reason})", where=where,
                fix=f"give credentials that may read and write there: {CREDENTIALS[self.scheme]}",
            )  # fmt: skip
        if fault is Fault.REFUSED:
            return StorageError(
                f"the store refuses this: {reason}", where=where,
                fix="correct the URI, or the store's settings in the environment",
            )  # fmt: skip
        return StorageError(
            f"the store does not answer: {reason}", where=where, fix=see_that_it_runs()
        )  # fmt: skip


def see_that_it_runs() -> str:
    """The fix of a store that does not answer."""
    return (
        "see that it runs and is reached from here; it was asked for "
        f"{patience.PATIENCE_S:.0f} s. Then run the same command again"
    )


#: Where something lies: in a folder of this machine, or in a store.
Place = Path | Location


def is_uri(text: str) -> bool:
    """Whether a text is a URI of a store, and no path."""
    return "://" in text and not text.startswith("file://")


def place_of(text: str) -> Place:
    """The place that a path or a URI names; a path becomes absolute, and `file://` is a path.

    Raises:
        ValueError: no store that we know has such URIs, or it names no bucket.
    """
    if not is_uri(text):
        return Path(text.removeprefix("file://")).expanduser().absolute()
    scheme, _, rest = text.partition("://")
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise ValueError(f"no store has URIs of {scheme}://; use a path or one of {known}")
    if not rest.partition("/")[0]:
        raise ValueError(f"names no bucket; write {scheme}://bucket/folder")
    return Location(text.rstrip("/"))
