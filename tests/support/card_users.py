# SPDX-License-Identifier: Apache-2.0
"""What people do with a card that was provisioned: OpenSC's tools, openssl and ssh through OpenSC.

Keys and certificates go by OpenSC's numbers: 01 to 04 are the keys 9A, 9C, 9D and 9E.
"""

import re
from collections.abc import Mapping
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from clients import OPENSC_MODULE, Shell
from provisioning import authority

MESSAGE: Final = b"signed by a card\n"


async def use_with_opensc(
    shell: Shell, pin: str, certificates: Mapping[str, x509.Certificate]
) -> None:
    """Lists and uses the keys with pkcs15-tool and pkcs11-tool."""
    listed = await shell.run("pkcs15-tool", "--list-certificates", "--list-keys")
    assert re.findall(r"^Private .* Key ", listed, re.MULTILINE)
    for number, certificate in certificates.items():
        read = await shell.run("pkcs15-tool", f"--read-certificate={number}")
        pem = read[read.index("-----BEGIN") :].encode()
        assert x509.load_pem_x509_certificate(pem) == certificate
        if number != "03":
            await _sign_with_pkcs11_tool(shell, pin, number, certificate)
    key = certificates["03"].public_key() if "03" in certificates else None
    if isinstance(key, rsa.RSAPublicKey):
        oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
        await shell.write("secret", key.encrypt(MESSAGE, oaep))
        await shell.run(
            *("pkcs11-tool", "--login", f"--pin={pin}", "--decrypt", "--id=03"),
            *("--mechanism=RSA-PKCS-OAEP", "--hash-algorithm=SHA256", "--mgf=MGF1-SHA256"),
            *("--input-file=secret", "--output-file=opened"),
        )
        assert await shell.read("opened") == MESSAGE


async def _sign_with_pkcs11_tool(
    shell: Shell, pin: str, number: str, certificate: x509.Certificate
) -> None:
    key = certificate.public_key()
    mechanism = "SHA256-RSA-PKCS" if isinstance(key, rsa.RSAPublicKey) else "ECDSA-SHA256"
    await shell.write("message", MESSAGE)
    common = (f"--id={number}", f"--mechanism={mechanism}", "--input-file=message")
    login = ("--login", f"--pin={pin}")
    await shell.run("pkcs11-tool", *login, "--sign", *common, "--output-file=signature")
    verified = await shell.run("pkcs11-tool", "--verify", *common, "--signature-file=signature")
    assert "Signature is valid" in verified


async def use_with_openssl(
    shell: Shell, pin: str, certificates: Mapping[str, x509.Certificate]
) -> None:
    """Requests a certificate, signs and decrypts messages, and is a TLS client, with openssl."""
    await shell.write("ca.pem", authority().public_bytes(Encoding.PEM))
    for number, certificate in certificates.items():
        await shell.write(f"{number}.pem", certificate.public_bytes(Encoding.PEM))
    await shell.write("message", MESSAGE)

    async def openssl(command: str, key: str, number: str, *arguments: str) -> str:
        # The key 9C wants the PIN for each use, which the engine asks for.
        engine = ("-engine", "pkcs11", "-keyform", "engine")
        name = f"pkcs11:id=%{number};type=private;pin-value={pin}"
        module = f"PKCS11_MODULE_PATH={OPENSC_MODULE}"
        return await shell.run(
            *("env", module, "openssl", command, *engine, key, name, *arguments),
            given=f"{pin}\n".encode(),
        )

    for number in certificates.keys() & {"01", "02"}:
        await openssl("req", "-key", number, "-new", "-subj", "/CN=alice", "-out", "request.pem")
        request = x509.load_pem_x509_csr(await shell.read("request.pem"))
        assert request.is_signature_valid
        assert request.public_key() == certificates[number].public_key()
        signer = ("-signer", f"{number}.pem", "-in", "message", "-out", "signed")
        await openssl("cms", "-inkey", number, "-sign", "-nodetach", *signer)
        verify = ("-verify", "-in", "signed", "-CAfile", "ca.pem", "-purpose", "any")
        assert MESSAGE.decode().strip() in await shell.run("openssl", "cms", *verify)
    if "03" in certificates:
        await shell.run(
            *("openssl", "cms", "-encrypt", "-in", "message", "-out", "encrypted", "03.pem")
        )
        opened = ("-in", "encrypted", "-out", "opened")
        await openssl("cms", "-inkey", "03", "-decrypt", *opened)
        assert (await shell.read("opened")).strip() == MESSAGE.strip()
    key = f"pkcs11:id=%01;type=private;pin-value={pin}"
    await _be_a_tls_client(shell, key, "01.pem", certificates["01"].subject)


_TLS: Final = """\
trap 'kill $server $client' EXIT
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \\
    -keyout server.key -out server.pem -subj /CN=server
openssl s_server -accept 127.0.0.1:0 -cert server.pem -key server.key -rev \\
    -Verify 1 -CAfile ca.pem -verify_return_error >server.log 2>&1 &
server=$!
until port=$(sed -n 's/^ACCEPT .*://p' server.log) && [ "$port" ]; do sleep 0.1; done
rm -f sent received
mkfifo sent
openssl s_client -connect "127.0.0.1:$port" -CAfile server.pem -verify_return_error -quiet \\
    -engine pkcs11 -keyform engine -key "$1" -cert "$2" <sent >received 2>client.log &
client=$!
exec 3>sent
echo olleh >&3
until grep hello received; do
    kill -0 "$client" || { cat client.log server.log; exit 1; }
    sleep 0.1
done
cat server.log
"""
"""Arguments: key and certificate. The server sends each line back, reversed."""


async def _be_a_tls_client(shell: Shell, key: str, certificate: str, subject: x509.Name) -> None:
    module = f"PKCS11_MODULE_PATH={OPENSC_MODULE}"
    said = await shell.run("env", module, "sh", "-c", _TLS, "sh", key, certificate)
    # Versions of openssl set blanks in different places.
    assert f"Peercertificate:{subject.rfc4514_string()}" in said.replace(" ", "")


_SSH: Final = """\
set -e
trap 'kill "$SSH_AGENT_PID"' EXIT
eval "$(ssh-agent -s -P '/usr/lib/*')" >agent.log
ssh-add -s "$1"
ssh-keygen -D "$1" | grep ' PIV AUTH pubkey$' >card.pub
rm -f message.sig
ssh-keygen -Y sign -n file -f card.pub message
printf 'alice %s\\n' "$(cat card.pub)" >allowed
ssh-keygen -Y verify -n file -f allowed -I alice -s message.sig <message
"""
"""Argument: OpenSC's module."""

_SSHD: Final = """\
set -e
trap 'kill "$(cat sshd.pid)"' EXIT
mkdir -p /run/sshd
[ -e host_key ] || ssh-keygen -q -t ed25519 -N '' -f host_key
ssh-keygen -D "$1" >authorized
/usr/sbin/sshd -h "$PWD/host_key" -p 2222 -o ListenAddress=127.0.0.1 -o StrictModes=no \\
    -o "AuthorizedKeysFile=$PWD/authorized" -o "PidFile=$PWD/sshd.pid" -E "$PWD/sshd.log"
until [ -s sshd.pid ]; do sleep 0.1; done
printf '[127.0.0.1]:2222 %s\\n' "$(cat host_key.pub)" >known_hosts
ssh -p 2222 -o "UserKnownHostsFile=$PWD/known_hosts" -o "PKCS11Provider=$1" \\
    -o PreferredAuthentications=publickey root@127.0.0.1 echo logged in || { cat sshd.log; exit 1; }
"""
"""Argument: OpenSC's module."""


async def use_with_ssh(shell: Shell, pin: str, *, log_in: bool) -> None:
    """Signs a file by way of an agent that has the card, and logs in with the card's keys.

    Args:
        shell: where.
        pin: the PIN, for which ssh runs a program that asks.
        log_in: whether a server may be run, which takes root's rights, and root's account.
    """
    await shell.write("message", MESSAGE)
    await shell.write("ask", f"#!/bin/sh\necho {pin}\n".encode())
    await shell.run("chmod", "+x", "ask")
    command = ("env", "SSH_ASKPASS=./ask", "SSH_ASKPASS_REQUIRE=force", "sh", "-c")
    said = await shell.run(*command, _SSH, "sh", OPENSC_MODULE)
    assert 'Good "file" signature for alice' in said
    if log_in:
        assert "logged in" in await shell.run(*command, _SSHD, "sh", OPENSC_MODULE)
