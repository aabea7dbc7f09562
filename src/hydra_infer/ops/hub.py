"""Hub: a model's folder fetched from Hugging Face, or a mirror of it: checked for room, resumed, verified.

Two of the hub's HTTP routes are spoken (huggingface.co/docs/hub/api, November 2026): /api/models/REPO/tree/REVISION lists the
files, /REPO/resolve/REVISION/PATH gives one, by way of another host for large ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..engines.progress import Report, reporting
from ..errors import ConfigError, HydraError, Refused, Unreachable
from ..units import MIB, Size
from .journal import lock

if TYPE_CHECKING:
    import httpx

    from ..engines.progress import Progress

__all__ = ["fetch"]

HUB = "https://huggingface.co"
PIECE = 1 * MIB
# The hub lists 1,000 files a page; the largest repositories have some thousands.
MAX_LIST = 16 * MIB
MAX_PAGES = 100


@dataclass(frozen=True, slots=True)
class _File:
    """One file of the repository. Large ones are known by their `sha256`, the others by the `blob` that git knows them by."""

    path: str
    size: int
    sha256: str | None
    blob: str | None

    def digest(self) -> Any:
        """What its bytes are to be put into, so that the sum is the one that was told."""
        if self.sha256 is not None:
            return hashlib.sha256()
        # git's own name for a file's content: gitformat-pack(5), "blob".
        return hashlib.sha1(f"blob {self.size}\0".encode(), usedforsecurity=False)


def fetch(
    repo: str,
    into: str | Path,
    *,
    revision: str = "main",
    token: str | None = None,
    address: str = HUB,
    progress: Progress = None,
    transport: httpx.BaseTransport | None = None,
) -> Path:
    """The folder `into`/NAME, or NAME-REVISION, with every file of `repo` ("owner/name") at `revision`: a branch, which EXL3
    repositories have one of for each rate, or a commit; "main" is not written behind the name.

    What is there already is kept where it is the same (large files: where they have the right size), a file that was cut off goes
    on where it ended, and none has its name before it is whole and its sum is the hub's. `token` goes to `address` alone. Raises
    ConfigError for a name that is none, a disk too small or another pull at work, Refused for what the hub refuses, Unreachable,
    all with what to do.
    """
    import httpx

    owner, slash, name = repo.partition("/")
    if not slash or not owner or not name or ".." in repo or "/" in name:
        raise ConfigError(f"{repo!r} is no repository of the hub", hint="owner/name, as its page's address ends")
    folder = Path(into).expanduser() / (name if revision == "main" else f"{name}-{revision.replace('/', '-')}")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    options: dict[str, Any] = {"transport": transport} if transport else {}
    again = "run it again: what has come is kept"
    with (
        httpx.Client(
            base_url=address,
            headers=headers,
            follow_redirects=True,
            timeout=30.0,
            # Many networks reach the hub by a proxy alone. It may carry what is encrypted; a token in the clear is not for it.
            trust_env=address.startswith("https:"),
            **options,
        ) as client,
        reporting(progress) as report,
    ):
        try:
            _fetch_all(client, repo, revision, folder, report)
        except httpx.TransportError as error:
            raise Unreachable(f"{address}: {error or type(error).__name__}", hint=again, backend=address) from error
        except HydraError:  # some of ours are OSErrors too
            raise
        except OSError as error:
            raise ConfigError(f"{folder} cannot be written: {error.strerror}", hint=f"mend that, and {again}") from error
    return folder


def _fetch_all(client: httpx.Client, repo: str, revision: str, folder: Path, report: Report) -> None:
    files = list(_files(client, repo, revision))
    left = [file for file in files if not _is_whole(folder / file.path, file)]
    _check_room(folder, sum(file.size - _begun(folder / file.path) for file in left))
    total, done = sum(file.size for file in files), sum(file.size for file in files if file not in left)
    for file in left:
        url = f"/{repo}/resolve/{quote(revision, safe='')}/{quote(file.path)}"
        _fetch(client, url, folder, file, done, total, report)
        done += file.size
    report(1.0, f"{folder} is whole")


def _files(client: httpx.Client, repo: str, revision: str) -> Iterator[_File]:
    what = f"{repo} at {revision}"
    url = f"/api/models/{repo}/tree/{quote(revision, safe='')}?recursive=true"
    for _ in range(MAX_PAGES):
        with client.stream("GET", url, headers={"accept-encoding": "identity"}) as response:
            _check(response, what)
            rows = _rows(response, what)
        yield from rows
        if "next" not in response.links:
            return
        url = response.links["next"]["url"]
        # The token goes with the client, wherever the client is sent.
        if _origin(client.base_url.join(url)) != _origin(client.base_url):
            elsewhere = client.base_url.join(url).host
            raise Refused(f"the hub's list of {what} goes on at another address, {elsewhere}", hint="nothing was sent there")
    raise Refused(f"the hub's list of {what} has more than {MAX_PAGES} pages")


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _rows(response: httpx.Response, what: str) -> list[_File]:
    """The files of one page. Raises Refused for what is no list of files, or an endless one."""
    data = bytearray()
    for piece in response.iter_bytes(PIECE):
        data += piece
        if len(data) > MAX_LIST:
            raise Refused(f"the hub's list of {what} is larger than {Size(MAX_LIST)}")
    try:
        told: list[dict[str, Any]] = list(json.loads(data))
        rows = [row for row in told if row["type"] == "file"]
        return [_file(row) for row in rows]
    except ConfigError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Refused(f"the hub's list of {what} is none: {error!r:.200}", hint="is that address a hub?") from error


def _file(row: dict[str, Any]) -> _File:
    large = (row.get("lfs") or {}).get("oid")
    return _File(_safe(row["path"]), _size(row["size"]), large, None if large else row.get("oid"))


def _size(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"a size of {value!r:.80}")
    return value


def _safe(path: str) -> str:
    """A path that stays in its folder, whoever wrote the list."""
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\\" in path or ":" in path:
        raise ConfigError(f"the hub lists a file that would lie outside its folder: {path!r}")
    return path


def _check(response: httpx.Response, what: str) -> None:
    if response.status_code < 400:
        return
    hints = {
        401: "it is gated or private: give a token that may read it",
        403: "it is gated: accept its terms on its page, and give a token that may read it",
        404: "no such repository or revision; private ones need a token",
    }
    raise Refused(
        f"the hub answered {response.status_code} for {what}",
        hint=hints.get(response.status_code, "try again later"),
        status=response.status_code,
    )


def _check_room(folder: Path, needed: int) -> None:
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise ConfigError(
            f"{Size(needed)} are still to come, and {there} has {Size(free)} free", hint="make room, or another folder"
        )


def _part(file: Path) -> Path:
    return file.with_name(file.name + ".part")


def _begun(file: Path) -> int:
    return _part(file).stat().st_size if _part(file).exists() else 0


def _is_whole(path: Path, file: _File) -> bool:
    """Small files are read: a configuration of another revision may have the same size."""
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    return file.blob is None or _sum(path, file) == file.blob


def _sum(path: Path, file: _File) -> str:
    digest = file.digest()
    with path.open("rb") as data:
        while piece := data.read(PIECE):
            digest.update(piece)
    return str(digest.hexdigest())


def _fetch(client: httpx.Client, url: str, folder: Path, file: _File, done: int, total: int, report: Report) -> None:
    path = folder / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    with _part(path).open("ab") as out:
        if not lock(out):
            raise ConfigError(f"another process is fetching {path}", hint="wait until it is done")
        if (begun := _begun(path)) < file.size:
            headers = {"accept-encoding": "identity"} | ({"range": f"bytes={begun}-"} if begun else {})
            with client.stream("GET", url, headers=headers) as response:
                _check(response, file.path)
                if response.status_code != 206:  # all of it again
                    out.truncate(begun := 0)
                for piece in response.iter_raw():
                    out.write(piece)
                    begun += len(piece)
                    if begun > file.size:
                        break  # another file than was told of, and perhaps one without an end
                    report(min(1.0, (done + begun) / max(1, total)), f"fetching {file.path}")
        out.flush()
        os.fsync(out.fileno())
    _verify(path, file)
    _part(path).replace(path)


def _verify(path: Path, file: _File) -> None:
    """Raises Refused, and drops what has come, where it is not the file that the hub told of."""
    part, told = _part(path), f"{file.path} has {Size(file.size)}"
    if part.stat().st_size < file.size:
        raise Unreachable(f"{told}, {Size(part.stat().st_size)} came", hint="run it again: what has come is kept")
    wanted = file.sha256 or file.blob
    if part.stat().st_size != file.size or (wanted is not None and _sum(part, file) != wanted):
        part.unlink()
        raise Refused(f"{told} by the hub's list; what came is another file", hint="run it again: it was dropped")
