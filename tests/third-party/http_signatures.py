#!/usr/bin/env python3
"""Signs and verifies requests in the profile tidegate-v1 of RFC 9421 with http-message-signatures.

`sign` reads {method, url, body_hex, created, nonce, seed_hex} as JSON from standard input and
prints the three headers as JSON. `verify` reads {method, url, body_hex, headers, public_key_hex}.

The library writes the parameters in the order created, keyid, alg, nonce, tag; the profile fixes
created, nonce, keyid, alg, tag. `ProfileSigner` only sorts them before the library serializes them.

Exit codes: 0 signed or verified, 1 refused (one line on standard error), 2 wrong usage.
"""

import json
import sys
from dataclasses import dataclass, field
from datetime import datetime, timezone

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from http_message_signatures import (
    HTTPMessageSigner,
    HTTPMessageVerifier,
    HTTPSignatureKeyResolver,
    InvalidSignature,
    algorithms,
)

LABEL, TAG = "tg", "tidegate-v1"
COMPONENTS = ("@method", "@authority", "@path", "@query", "content-digest")
PARAMETERS = ("created", "nonce", "keyid", "alg", "tag")


@dataclass
class Request:
    """What the library needs of a request."""

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Key(HTTPSignatureKeyResolver):
    """One key pair, or its public half; its id is the public key in hexadecimal."""

    public: Ed25519PublicKey
    private: Ed25519PrivateKey | None = None

    @property
    def id(self) -> str:
        """The key id of the profile."""
        return self.public.public_bytes_raw().hex()

    def resolve_public_key(self, key_id: str) -> Ed25519PublicKey | None:
        """Only this key is known."""
        return self.public if key_id == self.id else None

    def resolve_private_key(self, key_id: str) -> Ed25519PrivateKey | None:
        """Only this key is known."""
        return self.private if key_id == self.id else None


class ProfileSigner(HTTPMessageSigner):
    """The library's signer with the parameters in the profile's order."""

    def _build_signature_base(self, message, *, signature_params, **rest):
        ordered = {name: signature_params[name] for name in PARAMETERS}
        return super()._build_signature_base(message, signature_params=ordered, **rest)


def sign(order: dict) -> dict[str, str]:
    """The three headers of a signed request."""
    private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(order["seed_hex"]))
    key = Key(private.public_key(), private)
    request = Request(order["method"], order["url"])
    ProfileSigner(signature_algorithm=algorithms.ED25519, key_resolver=key).sign(
        request,
        key_id=key.id,
        created=datetime.fromtimestamp(order["created"], timezone.utc),
        nonce=order["nonce"],
        label=LABEL,
        tag=TAG,
        covered_component_ids=COMPONENTS,
        body=bytes.fromhex(order["body_hex"]),
    )
    return request.headers


def verify(order: dict) -> None:
    """Raises InvalidSignature unless the request is signed by the key, in the profile."""
    key = Key(Ed25519PublicKey.from_public_bytes(bytes.fromhex(order["public_key_hex"])))
    request = Request(order["method"], order["url"], order["headers"])
    # Freshness comes from the nonce: no age is too old.
    (result,) = HTTPMessageVerifier(signature_algorithm=algorithms.ED25519, key_resolver=key).verify(
        request,
        max_age=None,
        expect_tag=TAG,
        expect_label=LABEL,
        require_components=COMPONENTS,
        body=bytes.fromhex(order["body_hex"]),
    )
    # The library reads the header as a structured field, where a repeated parameter counts once.
    # The profile has one spelling.
    covered = " ".join(f'"{name}"' for name in COMPONENTS)
    expected = (
        f"{LABEL}=({covered})"
        f";created={result.parameters.get('created')};nonce=\"{result.nonce}\""
        f";keyid=\"{key.id}\";alg=\"ed25519\";tag=\"{TAG}\""
    )
    headers = {name.lower(): value for name, value in request.headers.items()}
    if headers["signature-input"] != expected:
        raise InvalidSignature("Signature-Input is not spelled as the profile says")


def main() -> int:
    """Reads the command line and standard input."""
    if sys.argv[1:] not in (["sign"], ["verify"]):
        print("usage: http_signatures.py sign|verify < JSON", file=sys.stderr)
        return 2
    try:
        order = json.load(sys.stdin)
        if sys.argv[1] == "sign":
            print(json.dumps(sign(order)))
        else:
            verify(order)
    except json.JSONDecodeError as error:
        print(f"no JSON on standard input: {error}", file=sys.stderr)
        return 2
    except KeyError as error:
        print(f"the JSON lacks {error}", file=sys.stderr)
        return 2
    except Exception as error:  # whatever the library raises is a refusal
        reason = str(error) or "the signature does not match"
        print(f"refused: {type(error).__name__}: {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
