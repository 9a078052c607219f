"""Downloading the published traces from their publisher, on request, and unpacking them safely.

Nothing of these data sets comes with this project; all are CC-BY 4.0, by Microsoft Azure. Sizes and
checksums were looked up in November 2026.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import lzma
import os
import re
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

from tqdm import tqdm

from beta_jax.traces.cache import checksum
from beta_jax.traces.trace import TraceError

_REPOSITORY = "https://github.com/Azure/AzurePublicDataset"
_RAW = "https://raw.githubusercontent.com/Azure/AzurePublicDataset/master/data"
ATTEMPTS = 5
"""How often in a row a download may break off without getting any further."""
TIMEOUT_S = 30.0
BLOCK_BYTES = 2**20
LARGEST_UNPACKED_BYTES = 16 * 2**30


class FetchError(TraceError):
    """A download that failed; the message says what to do by hand."""


@dataclasses.dataclass(frozen=True)
class Download:
    """A file of a data set: where it is, how long it is, and what it holds.

    sha256: None if it is not known; then the size alone is verified. members: what to unpack from
    an archive, a regular expression for names without folders; None leaves the file as it is.
    by_hand: what the user has to do after the download.
    """

    url: str
    size: int
    sha256: str | None = None
    members: str | None = None
    by_hand: str | None = None

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


DATASETS: dict[str, tuple[Download, ...]] = {
    "maf1": (
        Download(
            f"{_REPOSITORY}/releases/download/dataset-functions-2019/"
            "azurefunctions_dataset2019_azurefunctions-dataset2019.tar.xz",
            142_968_140,
            "aff8b3ca7240a41a109e4ee598e0a96e45fcb92e7b8395ac19cb3748cd260d89",
            members=r"invocations_per_function_md\.anon\.d\d\d\.csv",
        ),
    ),
    "maf2": (
        Download(
            f"{_RAW}/AzureFunctionsInvocationTraceForTwoWeeksJan2021.rar",
            18_444_269,
            "8bb5d1c82e89e467062b6582996232df24edfebadbaf3287a8c985ca178ba92d",
            by_hand="Python cannot unpack RAR archives: run `unrar x {file}` in {folder} (RARLAB's "
            "unrar; p7zip and unar fail on this one); it makes a .txt file, which is the trace",
        ),
    ),
    "azure_llm": (
        Download(
            f"{_RAW}/AzureLLMInferenceTrace_code.csv",
            320_117,
            "54e9a6d2a4bd06ba1e060304b900abbc74cbea53de96506e60fe5bb4f2277fb6",
        ),
        Download(
            f"{_RAW}/AzureLLMInferenceTrace_conv.csv",
            719_188,
            "2f1e5b666d4e3055fdbba98598ce2ec307767b9064e03e2fa46676dbcc7d0bf8",
        ),
    ),
    "azure_llm_2024": (
        Download(
            f"{_REPOSITORY}/releases/download/dataset-llm-2024/"
            "AzureLLMInferenceTrace_code_1week.csv",
            691_989_454,
        ),
        Download(
            f"{_REPOSITORY}/releases/download/dataset-llm-2024/"
            "AzureLLMInferenceTrace_conv_1week.csv",
            1_135_195_393,
        ),
    ),
}


def fetch(
    dataset: str,
    to: str | os.PathLike[str],
    *,
    downloads: tuple[Download, ...] | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Download a data set into a folder, verify it, and unpack it there.

    A file that is there already, put there by hand for instance, is verified and not downloaded; a
    download that broke off goes on where it ended. downloads: other files than `DATASETS` gives.
    Raises FetchError, which says what to download by hand and where to put it.
    """
    if downloads is None:
        if dataset not in DATASETS:
            raise FetchError(f"data set must be {', '.join(DATASETS)}, got {dataset!r}")
        downloads = DATASETS[dataset]
    folder = Path(to)
    folder.mkdir(parents=True, exist_ok=True)
    for item in downloads:
        target = folder / item.name
        if not target.exists():
            partial = target.with_name(target.name + ".part")
            _download(item, partial, target)
            _verify(item, partial)
            partial.replace(target)
        else:
            _verify(item, target)
        say(f"{target}: {item.size:,} bytes, verified")
        if item.members is not None:
            for name in unpack(target, folder, item.members):
                say(f"{folder / name}: unpacked")
        if item.by_hand is not None:
            say(item.by_hand.format(file=target.name, folder=folder))


def _download(item: Download, partial: Path, target: Path) -> None:
    """Bring `partial` to its full size, going on where it ends."""
    failures, reason = 0, "no answer"
    with tqdm(total=item.size, unit="B", unit_scale=True, desc=item.name) as bar:
        while (have := partial.stat().st_size if partial.exists() else 0) < item.size:
            bar.n = have
            try:
                _read(item, partial, have, bar)
            except urllib.error.HTTPError as error:
                reason = f"the server answers {error.code} {error.reason}"
                if error.code < 500:
                    failures = ATTEMPTS
            except (OSError, http.client.HTTPException) as error:
                reason = str(getattr(error, "reason", "") or error)
            failures = 0 if partial.exists() and partial.stat().st_size > have else failures + 1
            if failures >= ATTEMPTS:
                raise FetchError(
                    f"cannot download {item.url} ({' '.join(reason.split())}): download it by hand "
                    f"to {target}, then run this again"
                )


def _read(item: Download, partial: Path, have: int, bar: tqdm) -> None:
    request = urllib.request.Request(item.url, headers={"User-Agent": "beta_jax"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        # A server may ignore the range and send the whole file, which then starts anew.
        resumed = answer.status == 206 and _first_byte(answer) == have
        with open(partial, "ab" if resumed else "wb") as file:
            bar.n = have if resumed else 0
            while block := answer.read(BLOCK_BYTES):
                file.write(block)
                bar.update(len(block))
                if file.tell() > item.size:
                    return  # more than there should be, as the verification will say


def _first_byte(answer: http.client.HTTPResponse) -> int | None:
    match = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _verify(item: Download, path: Path) -> None:
    size = path.stat().st_size
    good = size == item.size
    found = f"{size:,} bytes instead of {item.size:,}"
    if good and item.sha256 is not None:
        digest = checksum(path)
        good, found = digest == item.sha256, f"SHA-256 {digest} instead of {item.sha256}"
    if not good:
        raise FetchError(
            f"{path}: {found}: not the published file; delete it, and run this again or download "
            f"{item.url} by hand"
        )


def unpack(archive: Path, folder: Path, members: str) -> list[str]:
    """Unpack the members of a tar or zip archive whose name matches, as plain files in `folder`.

    Whatever folder a member claims to be in, links and devices are left behind, so nothing outside
    `folder` is touched. A file that is there already in its full size is kept. Returns the names.
    Raises FetchError for damaged archives and more than `LARGEST_UNPACKED_BYTES`.
    """
    names = []
    left = LARGEST_UNPACKED_BYTES
    try:
        with contextlib.ExitStack() as stack:
            for member, size, open_member in _members(archive, stack):
                name = member.replace("\\", "/").rpartition("/")[2]
                if not re.fullmatch(members, name):
                    continue
                left -= size
                if left < 0:
                    raise FetchError(f"{archive}: more than {LARGEST_UNPACKED_BYTES:,} bytes in it")
                target = folder / name
                if not target.exists() or target.stat().st_size != size:
                    partial = target.with_name(name + ".part")
                    with open_member() as source, open(partial, "wb") as file:
                        shutil.copyfileobj(source, file, BLOCK_BYTES)
                    partial.replace(target)
                names.append(name)
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        lzma.LZMAError,
        zlib.error,
        EOFError,
        OSError,
    ) as error:
        raise FetchError(f"{archive}: cannot be unpacked: {error}") from None
    if not names:
        raise FetchError(f"{archive}: there is no {members} in it")
    return sorted(names)


def _members(archive: Path, stack: contextlib.ExitStack):  # type: ignore[no-untyped-def]
    """(name, size, function that opens it) of every plain file in an archive, one by one."""
    if zipfile.is_zipfile(archive):
        pack = stack.enter_context(zipfile.ZipFile(archive))
        for info in pack.infolist():
            if not info.is_dir():
                yield info.filename, info.file_size, lambda info=info: pack.open(info)
    else:
        tar = stack.enter_context(tarfile.open(archive))  # noqa: SIM115 - entered here
        for member in tar:
            if member.isreg():

                def open_member(member: tarfile.TarInfo = member) -> IO[bytes]:
                    source = tar.extractfile(member)
                    assert source is not None  # as it is a plain file
                    return source

                yield member.name, member.size, open_member
