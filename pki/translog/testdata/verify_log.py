#!/usr/bin/env python3
"""Verifies a log of issuances with nothing of Imprint's: Python, openssl, and the texts of
c2sp.org/tlog-tiles, c2sp.org/signed-note and RFC 6962.

usage: verify_log.py DIRECTORY PUBLIC-KEY [CERTIFICATE.der ...]

Prints size and root of the checkpoint, and the index of each certificate.
"""
import base64, hashlib, os, subprocess, sys, tempfile


def path(number):
    digits = "%03d" % number
    if len(digits) % 3:
        digits = "0" * (3 - len(digits) % 3) + digits
    parts = [digits[i:i + 3] for i in range(0, len(digits), 3)]
    return "/".join(["x" + p for p in parts[:-1]] + parts[-1:])


def root_of(leaves):
    """RFC 6962 section 2.1."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + root_of(leaves[:k]) + root_of(leaves[k:])).digest()


def verify(key, message, signature):
    """Ed25519, by openssl."""
    with tempfile.TemporaryDirectory() as d:
        files = {"key": bytes.fromhex("302a300506032b6570032100") + key, "message": message, "signature": signature}
        for name, data in files.items():
            with open(os.path.join(d, name), "wb") as f:
                f.write(data)
        subprocess.run(["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", d + "/key", "-rawin",
                        "-in", d + "/message", "-sigfile", d + "/signature"], check=True, stdout=subprocess.DEVNULL)


def main(directory, public, *certificates):
    name, key_id, key = public.strip().split("+", 2)
    key = base64.b64decode(key)
    assert key[0] == 1, "not an Ed25519 key"
    assert hashlib.sha256(name.encode() + b"\n" + key).digest()[:4].hex() == key_id, "not the key's own id"

    with open(directory + "/checkpoint", "rb") as f:
        text, signatures = f.read().split(b"\n\n", 1)
    text += b"\n"
    lines = [s for s in signatures.decode().splitlines() if s.startswith("\u2014 " + name + " ")]
    assert len(lines) == 1, "not signed by this log"
    signature = base64.b64decode(lines[0].rsplit(" ", 1)[1])
    assert signature[:4].hex() == key_id, "signed by another key"
    verify(key[1:], text, signature[4:])
    origin, size, root = text.decode().splitlines()[:3]
    assert origin == name
    size = int(size)

    entries = []
    for number in range((size + 255) // 256):
        width = min(256, size - number * 256)
        with open(directory + "/tile/entries/" + path(number) + (".p/%d" % width if width < 256 else ""), "rb") as f:
            data = f.read()
        while data:
            n = int.from_bytes(data[:2], "big")
            entries.append(data[2:2 + n])
            data = data[2 + n:]
    assert len(entries) == size, "%d entries" % len(entries)
    computed = root_of([hashlib.sha256(b"\x00" + e).digest() for e in entries])
    assert base64.b64encode(computed).decode() == root, "the entries have another root"
    print(size, root)

    found = {}
    for index, entry in enumerate(entries):
        assert entry[0] == 1, "another version"
        rest = entry[1:]
        for _ in range(4):  # account, region, authority, issuance
            rest = rest[1 + rest[0]:]
        identity, n, der = rest[:32], int.from_bytes(rest[32:34], "big"), rest[34:]
        assert len(der) == n and (n == 0 or hashlib.sha256(der).digest() == identity)
        found[identity] = index
    for name in certificates:
        with open(name, "rb") as f:
            print(found[hashlib.sha256(f.read()).digest()])


main(*sys.argv[1:])
