"""What is changed of Serve's HAProxy: slow clients, full services, answers in our own form.

Serve writes HAProxy's configuration and has variables for a part of it. For the rest a script
stands before the program: it changes the file that HAProxy is about to read.
"""

from __future__ import annotations

import resource
import shlex
from pathlib import Path

from recsys.config import Serve
from serve.schemas.problems import refusal, unavailable

#: Seconds in which a request has to be there, its body included. `BodyLimit` says the same, but
#: HAProxy holds a request back until it is whole, and so a slow one never gets there.
MAX_REQUEST_S = 10
#: Seconds without a byte after which a client is given up that should send or read something.
IDLE_CLIENT_S = 30
#: Connections at most. Each takes some 20 KiB while its request is incomplete.
MAX_CONNECTIONS = 16_384
#: Of these one client may hold so large a part: all of a gateway's have one address.
SHARE_OF_A_CLIENT = 0.75
#: And so many those who read its metrics, and as many those who look at its statistics: they share
#: the places of all.
MAX_OTHER_CONNECTIONS = 50
#: Bytes that HAProxy holds of a request, headers included: what fits is sent on when it is whole.
BUFFER_BYTES = 32_768
#: A longer body, or one of unknown length, is at a replica while it trickles in, and keeps a place.
LARGE_BODY_BYTES = 16_000
#: File descriptors that one connection may need (client, server, pipes), and those of the process.
_FILES_A_CONNECTION, _OTHER_FILES = 2.6, 200

BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"

_SCRIPT = r"""#!/bin/sh
for word in "$@"; do
    [ "$previous" != -f ] || sed -i -f {changes} "$word" || exit 1
    previous=$word
done
exec {binary} "$@"
"""
#: Serve starts HAProxy again and again with one file: what was added goes before it is added anew.
_ADDED = "# raycommend"
#: A request is sent on when all of it is there: only then can it be put to another replica. As long
#: as HAProxy knows no application, which is so for a moment after its start, that is no 404. And it
#: refuses what replicas would have to refuse: theirs comes late from an event loop that has much to
#: do, and takes of its time. Large bodies may have half of the places: slow ones then leave room.
_CHANGES = r"""/{added}$/d
/^    errorfile 50[234] /d
s/^    option httplog$/&\
    option http-buffer-request {added}\
    timeout http-request {max_request_s}s {added}\
{errors}/
/^frontend http_frontend$/a\
    stick-table type ipv6 size 100k expire 60s store conn_cur {added}
s/^\(frontend prometheus\|listen stats\)$/&\
    maxconn {others} {added}/
s/^frontend \(http\|grpc\)_frontend$/&\
    tcp-request connection track-sc0 src table http_frontend {added}\
    tcp-request connection reject if {{ sc0_conn_cur gt {most_of_client} }} {added}\
    option disable-h2-upgrade {added}/
s/^\( *bind\) \*\{{0,1\}}:\([0-9]*\)$/\1 {host}:\2/
/^backend default_backend$/,/ return status / s/ return status 404 .*/{no_app}/
/^backend http-/a\
    http-request set-var(txn.room) nbsrv,mul({room}) {added}\
    http-request return status 503 {full} if {{ be_conn,sub(txn.room) gt 0 }} {added}\
    stick-table type string size 16 expire 60s store conn_cur {added}\
    http-request set-var(txn.half) nbsrv,mul({places}),div(2) {added}\
    acl is_large req.hdr_val(content-length) gt {large} {added}\
    acl is_large req.hdr(transfer-encoding) -m found {added}\
    acl is_large req.body_size gt {large} {added}\
    http-request track-sc1 str(large) if is_large {added}\
    http-request return status 503 {full} if is_large {{ sc1_conn_cur,sub(txn.half) gt 0 }} {added}
"""
_JSON = "content-type application/json"
_NO_APP = (
    r" return status 503 hdr Retry-After 1 content-type text\/plain "
    'string "no application is known yet"'
)


def max_connections() -> int:
    """Connections that HAProxy may hold: it refuses to start with more than it has files for."""
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most_files == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return min(MAX_CONNECTIONS, int((most_files - _OTHER_FILES) / _FILES_A_CONNECTION))


def write_script(folder: Path, binary: str, settings: Serve, *, connections: int) -> Path:
    """The program that Serve is to start in HAProxy's place.

    Args:
        folder: where it and its files are written.
        binary: HAProxy.
        settings: how much a replica takes on, in work and waiting; and the service's address, for
            HAProxy's metrics and statistics are told there alone, and not on all interfaces.
        connections: see `max_connections`.
    """
    answers = {
        408: refusal(408, [((), f"did not arrive within {MAX_REQUEST_S} s", "slow")]),
        502: refusal(502, [((), "the replica died while it answered", "internal")]),
        503: unavailable("no replica can be reached"),
        504: refusal(504, [((), "no answer in time", "internal")]),
    }
    errors = []
    for status, answer in answers.items():
        file = folder / f"{status}.json"
        file.write_bytes(answer.body)
        again = " hdr Retry-After 1" if "retry-after" in answer.headers else ""
        errors.append(f"    http-error status {status} {_JSON} file {file}{again} {_ADDED}")
    full = folder / "full.json"
    full.write_bytes(unavailable("more requests wait than can be taken on").body)
    script, changes = folder / "haproxy", folder / "haproxy.sed"
    host = "*" if settings.host in ("0.0.0.0", "::") else settings.host
    text = _CHANGES.format(
        added=_ADDED,
        max_request_s=MAX_REQUEST_S,
        errors="\\\n".join(errors).replace("/", r"\/"),
        most_of_client=int(connections * SHARE_OF_A_CLIENT),
        host=host,
        others=MAX_OTHER_CONNECTIONS,
        no_app=_NO_APP,
        room=settings.max_ongoing_requests + settings.max_queued_requests,
        places=settings.max_ongoing_requests,
        large=LARGE_BODY_BYTES,
        full=f"{_JSON} hdr Retry-After 1 file {full}",
    )
    changes.write_text(text)
    script.write_text(_SCRIPT.format(changes=shlex.quote(str(changes)), binary=shlex.quote(binary)))
    script.chmod(0o700)
    return script
