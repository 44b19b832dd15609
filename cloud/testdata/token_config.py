"""Makes token-config.json: the file of the secret addon.network.token, once for each length of a key.

    python3 token_config.py > token-config.json

`openssl` encrypts, so that the file owes nothing to the code that reads it.
"""

import base64
import json
import subprocess


def encrypt(key: str, iv: bytes, text: str) -> str:
    command = ["openssl", "enc", f"-aes-{len(key) * 8}-cbc", "-K", key.encode().hex(), "-iv", iv.hex()]
    cipher = subprocess.run(command, input=text.encode(), capture_output=True, check=True).stdout
    return base64.b64encode(iv + cipher).decode()


def file(key: str) -> dict:
    return {
        "access.key.id": encrypt(key, b"\x01" * 16, "STS.NUkeyid"),
        "access.key.secret": encrypt(key, b"\x02" * 16, "sixteen letters!"),
        "security.token": encrypt(key, b"\x03" * 16, "CAIS" + "token/+==" * 40),
        "expiration": "2026-11-20T18:00:00Z",
        "keyring": key,
    }


print(json.dumps([file("k" * length) for length in (16, 24, 32)], indent=1))
