# SPDX-License-Identifier: Apache-2.0
"""The messages of QMP.

Source: QEMU, docs/interop/qmp-spec.rst, "Protocol Specification".
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from ccid_protocol.errors import RemoteProtocolError
from ccid_protocol.qmp.jsonstream import JSON

_REQUEST_MEMBERS: Final = {"execute", "arguments", "id"}


class NoId(enum.Enum):
    """The type of `NO_ID`, so that type checkers can tell it from an id."""

    NO_ID = enum.auto()


NO_ID: Final = NoId.NO_ID
"""A request, or its response, that has no id; null is one."""


class ErrorClass(enum.StrEnum):
    """What kind of error it is, for programs (QEMU, qapi/error.json, QapiErrorClass)."""

    GENERIC_ERROR = "GenericError"
    COMMAND_NOT_FOUND = "CommandNotFound"
    DEVICE_NOT_FOUND = "DeviceNotFound"


@dataclass(frozen=True, slots=True)
class Request:
    """A command to be executed.

    Attributes:
        execute: its name.
        arguments: its arguments. They may be PINs, so they are left out of the repr.
        id: what the response is to repeat.
    """

    execute: str
    arguments: Mapping[str, JSON] = field(default_factory=dict, repr=False)
    id: JSON | NoId = NO_ID


@dataclass(frozen=True, slots=True)
class BadRequest:
    """Something that is no request. The server answers with an `Error`, and goes on.

    Attributes:
        description: what is wrong with it, for people, without anything of its text.
        id: what the response is to repeat.
    """

    description: str
    id: JSON | NoId = NO_ID


@dataclass(frozen=True, slots=True)
class Greeting:
    """The server's first message.

    Attributes:
        version: which server it is; QEMU's own clients want "qemu" in it, with major, minor and
            micro.
        capabilities: what it can do beyond the basic protocol.
    """

    version: Mapping[str, JSON]
    capabilities: Sequence[JSON] = ()


@dataclass(frozen=True, slots=True)
class Return:
    """A command was executed.

    Attributes:
        value: what came of it; an empty object if there is nothing to tell.
        id: the request's.
    """

    value: JSON
    id: JSON | NoId = NO_ID


@dataclass(frozen=True, slots=True)
class Error:
    """A command was not executed.

    Attributes:
        error_class: for programs, an `ErrorClass` or another name.
        description: for people.
        id: the request's.
    """

    error_class: str
    description: str
    id: JSON | NoId = NO_ID


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened.

    Attributes:
        name: what, in capital letters.
        data: more of it.
        seconds: when: since 1970, UTC; -1 if the server does not know.
        microseconds: of that second.
    """

    name: str
    data: Mapping[str, JSON]
    seconds: int
    microseconds: int


Message: TypeAlias = Greeting | Return | Error | Event
"""What a server sends."""


def decode_request(value: JSON) -> Request | BadRequest:
    """Reads what a client sent."""
    if not isinstance(value, Mapping):
        return BadRequest("a request is an object")
    request_id = value.get("id", NO_ID)
    fault = None
    execute, arguments = value.get("execute"), value.get("arguments", {})
    if "exec-oob" in value:
        fault = "exec-oob: out-of-band execution is not offered"
    elif "execute" not in value:
        fault = "a request needs the member execute"
    elif not value.keys() <= _REQUEST_MEMBERS:
        fault = "a request has the members execute, arguments and id, and no others"
    elif isinstance(execute, str) and isinstance(arguments, Mapping):
        return Request(execute, arguments, request_id)
    elif isinstance(execute, str):
        fault = "the member arguments is to be an object"
    else:
        fault = "the member execute is to be a string"
    return BadRequest(fault, request_id)


def decode_message(value: JSON) -> Message:
    """Reads what a server sent.

    Raises:
        RemoteProtocolError: It is no message.
    """
    members = value if isinstance(value, Mapping) else {}
    response_id = members.get("id", NO_ID)
    match members:
        case {"QMP": {"version": Mapping() as version, "capabilities": [*capabilities]}}:
            return Greeting(version, capabilities)
        case {
            "event": str(name),
            "timestamp": {"seconds": int(seconds), "microseconds": int(microseconds)},
        }:
            data = members.get("data", {})
            if isinstance(data, Mapping):
                return Event(name, data, seconds, microseconds)
        case {"return": content}:
            return Return(content, response_id)
        case {"error": {"class": str(error_class), "desc": str(description)}}:
            return Error(error_class, description, response_id)
    raise RemoteProtocolError("an object that is no message of a QMP server")


def message_as_json(message: Message) -> JSON:
    """Gives the object that a message is."""
    match message:
        case Greeting(version, capabilities):
            return {"QMP": {"version": version, "capabilities": capabilities}}
        case Return(value, response_id):
            return with_id({"return": value}, response_id)
        case Error(error_class, description, response_id):
            error: JSON = {"class": error_class, "desc": description}
            return with_id({"error": error}, response_id)
        case Event(name, data, seconds, microseconds):
            timestamp: JSON = {"seconds": seconds, "microseconds": microseconds}
            return {"timestamp": timestamp, "event": name, "data": data}


def with_id(members: Mapping[str, JSON], response_id: JSON | NoId) -> JSON:
    """Gives an object its id, if there is one."""
    return members if isinstance(response_id, NoId) else {**members, "id": response_id}
