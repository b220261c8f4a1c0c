"""Runs the AWS CLI of this machine, each command in a process of its own that is
forked from one in which the CLI's modules are imported already: most of a command's
time is that import. It ends with its standard input."""
import array
import json
import os
import select
import shutil
import signal
import socket
import sys

before = dict(os.environ)
import awscli.clidriver

# What the import itself puts there, such as where the CLI's data is.
added = {name: value for name, value in os.environ.items() if before.get(name) != value}

# What the first command would import; the session that it makes is thrown away.
awscli.clidriver.create_clidriver()


def serve(conn):
    fds = array.array("i")
    data, ancillary, _, _ = conn.recvmsg(1 << 20, socket.CMSG_SPACE(3 * fds.itemsize))
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload)
    while not data.endswith(b"\n"):
        more = conn.recv(1 << 20)
        if not more:
            return
        data += more
    request = json.loads(data)
    child = os.fork()
    if child == 0:
        run(request, list(fds))
    for fd in fds:
        os.close(fd)
    ended = os.pidfd_open(child)
    ready, _, _ = select.select([ended, conn], [], [])
    if ended not in ready:
        os.kill(child, signal.SIGKILL)  # the client is gone
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    try:
        conn.sendall(b"%d\n" % (code if code >= 0 else 128 - code))
    except OSError:
        pass


def run(request, fds):
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update({**request["env"], **added})
    sys.argv = ["aws"] + request["args"]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = awscli.clidriver.main()
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def main():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(sys.argv[1])
    listener.listen(64)
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select([listener, 0], [], [])
        if 0 in ready and not os.read(0, 1):
            shutil.rmtree(os.path.dirname(sys.argv[1]), ignore_errors=True)
            return
        if listener not in ready:
            continue
        conn, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            try:
                serve(conn)
            finally:
                os._exit(0)
        conn.close()


main()
