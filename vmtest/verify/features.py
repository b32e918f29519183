"""What ``bpftool feature probe`` says of a kernel, kept in the cache: it asks a guest for seconds.

It tries every helper with every type of program.  What it finds depends on the kernel, on how that
boots, and on the guest's bpftool, and not on what was loaded before.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vmtest.host.cache import read_record, sha256_json, write_record
from vmtest.matrix.bench import Job

FOLDER = "features"
"""The folder of the cache, with a file for each kernel and guest."""
_WHOLE = "Scanning miscellaneous eBPF features"  # bpftool's last part


@dataclass(frozen=True, slots=True)
class Features:
    """What is kept in the file ``place``; None keeps nothing."""

    place: Path | None = None

    @classmethod
    def of(cls, job: Job, cache: Path) -> Features:
        """What is kept in ``cache`` of the kernel and guest of ``job``, if digests tell them."""
        image, root = job.image, job.root
        if not (image.digest and root.digest):
            return cls()
        libraries = [library.version for library in root.libraries]
        cmdline = list(job.kernel.cmdline)
        parts = [image.digest, image.release, root.kind, root.digest, libraries, cmdline]
        return cls(cache / FOLDER / f"{image.release}-{sha256_json(parts)[:16]}.json")

    @property
    def known(self) -> str:
        """What bpftool said once, "" if that is not known."""
        found = None if self.place is None else read_record(self.place)
        text = None if found is None else found.get("text")
        return text if isinstance(text, str) else ""

    def keep(self, text: str) -> None:
        """Keep what bpftool said, if it came to its end; a cache that is full keeps nothing."""
        if self.place is not None and _WHOLE in text:
            with suppress(OSError):
                self.place.parent.mkdir(parents=True, exist_ok=True)
                write_record(self.place, {"text": text})


NO_FEATURES = Features()
