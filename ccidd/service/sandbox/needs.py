# SPDX-License-Identifier: Apache-2.0
"""What a process needs of the machine: files, programs, ports.

Light, since each PKCS#11 module's process has it; `ccidd.service.sandbox.derivation` knows where
needs come from.
"""

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self


class Access(enum.Flag):
    """What may be done with a path and all that is beneath it."""

    READ = enum.auto()
    EXECUTE = enum.auto()
    WRITE = enum.auto()
    """All: read, write, make, remove."""
    CREATE = enum.auto()
    """Files may be made, written and removed, but not read."""
    BIND = enum.auto()
    """Sockets and links may be made and removed."""
    DEVICE = enum.auto()
    """Devices may be used."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What is needed, or what there is.

    Attributes:
        paths: what may be done with which files and directories; all are absolute.
        modules: whether libraries of others are loaded, by this process or by those it starts.
        programs: whether other programs are started.
        internet: whether TCP is spoken, other than on sockets that were passed.
        connects_to: TCP ports that are connected to; None for any.
        listens_on: TCP ports that are listened on.
        abstract_sockets: whether sockets are connected to that have no file.
        signals: whether processes are signalled that do not share this one's sandbox.
    """

    paths: Mapping[Path, Access] = field(default_factory=dict)
    modules: bool = False
    programs: bool = False
    internet: bool = False
    connects_to: frozenset[int] | None = frozenset()
    listens_on: frozenset[int] = frozenset()
    abstract_sockets: bool = False
    signals: bool = False

    def __or__(self, other: Self) -> "Needs":
        """What both need."""
        paths = dict(self.paths)
        for path, access in other.paths.items():
            paths[path] = paths.get(path, access) | access
        ours, theirs = self.connects_to, other.connects_to
        return Needs(
            paths,
            modules=self.modules or other.modules,
            programs=self.programs or other.programs,
            internet=self.internet or other.internet,
            connects_to=None if ours is None or theirs is None else ours | theirs,
            listens_on=self.listens_on | other.listens_on,
            abstract_sockets=self.abstract_sockets or other.abstract_sockets,
            signals=self.signals or other.signals,
        )

    def beyond(self, granted: "Needs") -> str | None:
        """Tells what of this is not granted, for people; None if all is."""
        if self.programs and not granted.programs:
            return "a program (PKCS#11 modules run in one)"
        for path, access in self.paths.items():
            if access & ~granted.access_to(path):
                return f"{path}"
        if self.internet and not granted.internet:
            return "TCP"
        ports = set(self.listens_on - granted.listens_on)
        if granted.connects_to is not None:
            ports |= (self.connects_to or frozenset()) - granted.connects_to
        if ports:
            return f"TCP port {min(ports)}"
        return None

    def access_to(self, path: Path) -> Access:
        """Tells what may be done with a path."""
        access = Access(0)
        for place in (path, *path.parents):
            access |= self.paths.get(place, Access(0))
        if Access.WRITE in access:
            access |= Access.READ | Access.CREATE | Access.BIND
        return access

    def to_json(self) -> str:
        """Writes it in JSON, in one line."""
        ports = self.connects_to
        return json.dumps(
            {
                "paths": {f"{path}": access.value for path, access in self.paths.items()},
                "modules": self.modules,
                "programs": self.programs,
                "internet": self.internet,
                "connects_to": None if ports is None else sorted(ports),
                "listens_on": sorted(self.listens_on),
                "abstract_sockets": self.abstract_sockets,
                "signals": self.signals,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads what `to_json` wrote."""
        values = json.loads(text)
        ports = values.pop("connects_to")
        return cls(
            {Path(path): Access(access) for path, access in values.pop("paths").items()},
            connects_to=None if ports is None else frozenset(ports),
            listens_on=frozenset(values.pop("listens_on")),
            **values,
        )
