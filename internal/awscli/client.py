import array, json, os, socket, sys
conn = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
conn.connect(SOCKET)
text = json.dumps({"args": sys.argv[1:], "cwd": os.getcwd(), "env": dict(os.environ)}).encode() + b"\n"
sent = conn.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
conn.sendall(text[sent:])
answer = b""
while not answer.endswith(b"\n"):
    more = conn.recv(64)
    if not more:
        sys.exit("the host of the AWS CLI is gone")
    answer += more
os._exit(int(answer))
