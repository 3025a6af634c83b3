"""What went wrong, as a reply: a status and one line, ``{"error": ...}``."""

from __future__ import annotations

import errno
import logging
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as AnyHTTPException

from ..errors import FacetpuError, os_error
from .refusals import Busy, Conflict, Full, Refused, Unknown

log = logging.getLogger(__name__)
_STATUS = {Unknown: 404, Conflict: 409, Refused: 422, Busy: 503, Full: 507}


class Failure(HTTPException):
    """A reply that is no success: its status, one line, and whether the connection ends with it."""

    def __init__(self, status: int, problem: str, close: bool = False, **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        super().__init__(status, problem, {**named, "Connection": "close"} if close else named)


def reply(error: AnyHTTPException) -> JSONResponse:
    """``error`` as a response."""
    return JSONResponse({"error": str(error.detail)}, error.status_code, getattr(error, "headers", None))


def add_handlers(app: FastAPI) -> None:
    """Have ``app`` answer with one line, whatever goes wrong."""

    async def of_http(request: Request, error: Any) -> JSONResponse:
        return reply(error)

    async def of_input(request: Request, error: Any) -> JSONResponse:
        said = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3]]
        return reply(Failure(422, str(FacetpuError("; ".join(said)))))

    async def of_house(request: Request, error: Any) -> JSONResponse:
        # What is none of the refusals is of the rooms below: a name that does not fit, a damaged photo.
        status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 422)
        return reply(Failure(status, str(error)))

    async def of_system(request: Request, error: Any) -> JSONResponse:
        log.error("%s %r: %s", request.method, request.scope["path"], os_error(error))
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        # The path in the system's own words is no business of the client.
        said = "the disk is full; free some space and try again" if full else "the server's disk fails"
        return reply(Failure(507 if full else 500, said))

    async def of_us(request: Request, error: Exception) -> JSONResponse:
        return reply(Failure(500, "the server failed; its log says how"))

    app.add_exception_handler(AnyHTTPException, of_http)
    app.add_exception_handler(RequestValidationError, of_input)
    app.add_exception_handler(FacetpuError, of_house)
    app.add_exception_handler(OSError, of_system)
    app.add_exception_handler(Exception, of_us)
