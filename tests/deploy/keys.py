"""What two parties agree on before a deployed run: certificates of a server, and centers' keys."""

import datetime
import ipaddress
import pathlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_ONE_DAY = datetime.timedelta(days=1)


def certificates(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """{'ca', 'cert', 'key'}: files of an authority, and of a server here that it vouches for."""
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    is_ca = x509.BasicConstraints(True, 0)
    ca = _signed('authority', ca_key.public_key(), 'authority', ca_key, is_ca)
    here = [x509.DNSName('localhost'), x509.IPAddress(ipaddress.ip_address('127.0.0.1'))]
    server = _signed(
        'server', key.public_key(), 'authority', ca_key, x509.SubjectAlternativeName(here)
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    files = {'ca': ca.public_bytes(pem), 'cert': server.public_bytes(pem), 'key': private}
    for name, content in files.items():
        (folder / f'{name}.pem').write_bytes(content)
    return {name: folder / f'{name}.pem' for name in files}


def node_key(folder: pathlib.Path, name: str) -> tuple[pathlib.Path, pathlib.Path]:
    """The files of a node's private and public key, as of `ssh-keygen -t ecdsa -b 384`."""
    key, form = ec.generate_private_key(ec.SECP384R1()), serialization
    private, public = folder / f'{name}.key', folder / f'{name}.pub'
    private.write_bytes(key.private_bytes(
        form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption()
    ))
    private.chmod(0o600)
    public.write_bytes(key.public_key().public_bytes(
        form.Encoding.OpenSSH, form.PublicFormat.OpenSSH
    ))
    return private, public


def _signed(subject, public_key, issuer, issuer_key, extension) -> x509.Certificate:
    subject, issuer = (
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, n)]) for n in (subject, issuer)
    )
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
        .public_key(public_key).serial_number(x509.random_serial_number())
        .not_valid_before(now - _ONE_DAY).not_valid_after(now + _ONE_DAY)
        .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        .sign(issuer_key, hashes.SHA256())
    )
